//! Items of any shape in an encrypted store.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::*;
use crate::idempotency::record::Record;
use crate::items::tests::any_shape::entries_left;
use crate::store::codec::Codec;
use crate::store::embedded::{DirectoryOptions, Embedded, OpenError};
use crate::store::samples::id;
use crate::store::seal::{KEY, Keyring, MasterKey};
use crate::store::{Change, Store, Swap};

async fn opened(path: &Path) -> Arc<dyn Store> {
    let options = DirectoryOptions {
        path: path.to_owned(),
        cache: 1 << 20,
        create: true,
        expect_id: None,
        codec: Codec::sealed(Keyring::new(MasterKey::new([7; KEY]), Vec::new())),
    };
    let open = async {
        loop {
            match Embedded::open(&options) {
                Ok((store, _)) => return store,
                Err(OpenError::Locked(_)) => sleep(Duration::from_millis(1)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(WAIT_LIMIT, open).await.expect("the store before is closed")
}

#[tokio::test]
async fn an_encrypted_store_gives_back_what_batches_of_any_shape_left() {
    let forever = kept_for(Keep::Forever, Keep::Forever);
    let records: Vec<(u64, Record)> = (1..)
        .zip(entries_left(60))
        .map(|(at, entry)| (at, claim(at).with_ledger(entry, forever, T0)))
        .collect();
    assert!(records.len() > 100, "the test saw too little");
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store");
    let store = opened(&path).await;
    for some in records.chunks(64) {
        let put = |(at, record): &(u64, Record)| Change {
            id: id(*at),
            expect: None,
            put: Some(record.clone().into()),
        };
        let swapped = store.swap(some.iter().map(put).collect()).await.unwrap();
        assert!(matches!(swapped, Swap::Done), "{swapped:?}");
    }
    drop(store);
    let store = opened(&path).await;
    for (at, record) in &records {
        let found = store.get(id(*at)).await.unwrap().expect("it was stored");
        assert_eq!(found.ledger(), record.ledger(), "record {at}");
    }
}
