//! Tells a torn tail of the engine's journal from damage, before the engine reads it.
//!
//! The engine's journal is synced only now and then: what comes after the last mark (see `fold`) is in
//! the log too. A power failure may leave any of that half written, in any order of its pages, and
//! it can be cut off. But damage further ahead must not be taken for that: cutting there would
//! forget records that are in the table alone, and their keys would run again. So: what follows the
//! first bad batch decides. If a sound batch with a mark follows, data that was durable is damaged
//! and the store is not opened; else the tail is cut, and later journals with it. Left to itself the
//! engine cuts in some cases of either kind and refuses in others.
//!
//! The journal is a row of batches, little endian: start (tag 1, count u32, sequence u64), items
//! (tag 2, type u8, compression u8, keyspace u64, key length u16, length u32, length as stored u32,
//! key, value) or clears (tag 4, keyspace u64), end (tag 3, xxh3 of the items u64, magic).

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::checkpoint::MARK;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: [u8; 4] = *b"FJL\x03";
/// Sequence numbers rise by one for each batch and each table; no gap comes near this.
const LARGEST_GAP: u64 = 1 << 20;
const CHUNK: usize = 64 << 10;

/// Why a journal is not to be opened.
pub(super) enum JournalError {
    Io(io::Error),
    Damaged(String),
}

impl From<io::Error> for JournalError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Checks every journal of an engine's directory, in the order of writing, and cuts off a torn tail.
pub(super) fn check(dir: &Path) -> Result<(), JournalError> {
    let mut last = None;
    let mut torn: Option<(PathBuf, u64)> = None;
    let journals = journals(dir)?;
    if journals.is_empty() {
        let missing = "the journal of its table is missing";
        return Err(JournalError::Damaged(missing.to_owned()));
    }
    for (_, path) in journals {
        let mut journal = Journal::open(&path)?;
        if let Some((damaged_one, at)) = &torn {
            if journal.mark_after(0)? {
                return Err(damaged(damaged_one, *at));
            }
            if journal.content_after(0)? {
                cut(&path, 0)?;
            }
            continue;
        }
        let (end, seen) = journal.batches(last)?;
        last = seen;
        // Behind the end there may be space that was taken in advance.
        if journal.content_after(end)? {
            if journal.mark_after(end)? {
                return Err(damaged(&path, end));
            }
            torn = Some((path, end));
        }
    }
    // Last, so that a crash before it leaves the same to be found.
    torn.map_or(Ok(()), |(path, end)| Ok(cut(&path, end)?))
}

fn cut(journal: &Path, end: u64) -> io::Result<()> {
    tracing::warn!(journal = %journal.display(), end, "cut off what was not durable yet");
    let file = File::options().write(true).open(journal)?;
    file.set_len(end)?;
    file.sync_all()
}

fn damaged(path: &Path, at: u64) -> JournalError {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    JournalError::Damaged(format!(
        "its journal {name} has a bad batch at byte {at}, before what was known to be durable"
    ))
}

/// The journals in the order they were written.
fn journals(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|ext| ext == "jnl")) {
            journals.push((number, path));
        }
    }
    journals.sort_unstable();
    Ok(journals)
}

struct Journal {
    file: BufReader<File>,
    len: u64,
    /// The next byte to read.
    at: u64,
    /// For keys and values, used again.
    scratch: Vec<u8>,
    /// Whether the batch that was read last has a mark.
    marked: bool,
}

impl Journal {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let file = BufReader::with_capacity(CHUNK, file);
        Ok(Self { file, len, at: 0, scratch: Vec::new(), marked: false })
    }

    /// Reads sound batches from the start; gives where they end, and the last sequence number.
    fn batches(&mut self, mut last: Option<u64>) -> io::Result<(u64, Option<u64>)> {
        let mut end = 0;
        while let Some(sequence) = self.batch()? {
            let follows = last.is_none_or(|last| sequence > last && sequence - last < LARGEST_GAP);
            if !follows {
                break;
            }
            last = Some(sequence);
            end = self.at;
        }
        Ok((end, last))
    }

    /// Reads one batch; its sequence number when it is sound.
    fn batch(&mut self) -> io::Result<Option<u64>> {
        let Some([START]) = self.array()? else { return Ok(None) };
        let Some(count) = self.array()?.map(u32::from_le_bytes) else { return Ok(None) };
        let Some(sequence) = self.array()?.map(u64::from_le_bytes) else { return Ok(None) };
        let mut hash = Xxh3::new();
        self.marked = false;
        for _ in 0..count {
            if !self.item(&mut hash)? {
                return Ok(None);
            }
        }
        let Some([END]) = self.array()? else { return Ok(None) };
        let sum = self.array()?.map(u64::from_le_bytes);
        let whole = sum == Some(hash.digest()) && self.array()? == Some(MAGIC);
        Ok(whole.then_some(sequence))
    }

    /// Reads one item into the hash; whether it has the form of one.
    fn item(&mut self, hash: &mut Xxh3) -> io::Result<bool> {
        let Some([tag]) = self.array()? else { return Ok(false) };
        hash.update(&[tag]);
        let mut key = 0;
        let rest = match tag {
            ITEM => {
                let Some(head) = self.array::<20>()? else { return Ok(false) };
                hash.update(&head);
                let [.., k0, k1, _, _, _, _, v0, v1, v2, v3] = head;
                key = usize::from(u16::from_le_bytes([k0, k1]));
                key as u64 + u64::from(u32::from_le_bytes([v0, v1, v2, v3]))
            }
            CLEAR => 8,
            _ => return Ok(false),
        };
        // A length beyond the file's end asks for no memory.
        let Some(rest) = usize::try_from(rest).ok().filter(|_| rest <= self.len - self.at) else {
            return Ok(false);
        };
        self.scratch.resize(rest, 0);
        self.file.read_exact(&mut self.scratch)?;
        self.at += rest as u64;
        hash.update(&self.scratch);
        self.marked |= self.scratch.get(..key) == Some(MARK);
        Ok(true)
    }

    fn array<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.len - self.at < N as u64 {
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(Some(bytes))
    }

    fn seek(&mut self, at: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at))?;
        self.at = at;
        Ok(())
    }

    /// Whether anything but zeros follows.
    fn content_after(&mut self, at: u64) -> io::Result<bool> {
        self.seek(at)?;
        let mut chunk = vec![0; CHUNK];
        // Compared as a whole: most journals are mostly space taken in advance.
        let zeros = vec![0; CHUNK];
        loop {
            match self.file.read(&mut chunk)? {
                0 => return Ok(false),
                read if chunk[..read] != zeros[..read] => return Ok(true),
                _ => {}
            }
        }
    }

    /// Whether a sound batch with a mark stands anywhere behind `at`: there, or just after the end of
    /// some other.
    fn mark_after(&mut self, at: u64) -> io::Result<bool> {
        self.seek(at)?;
        if self.batch()?.is_some() && self.marked {
            return Ok(true);
        }
        let mut from = at;
        while let Some(end) = self.magic_after(from)? {
            self.seek(end)?;
            if self.batch()?.is_some() && self.marked {
                return Ok(true);
            }
            from = end;
        }
        Ok(false)
    }

    /// Where the next end of a batch may be.
    fn magic_after(&mut self, at: u64) -> io::Result<Option<u64>> {
        let mut start = at;
        let mut chunk = vec![0; CHUNK];
        loop {
            self.seek(start)?;
            let mut filled = 0;
            while filled < CHUNK {
                match self.file.read(&mut chunk[filled..])? {
                    0 => break,
                    read => filled += read,
                }
            }
            if let Some(found) = chunk[..filled].windows(MAGIC.len()).position(|at| at == MAGIC) {
                return Ok(Some(start + (found + MAGIC.len()) as u64));
            }
            if filled < CHUNK {
                return Ok(None);
            }
            // The magic may lie across two chunks.
            start += (filled - (MAGIC.len() - 1)) as u64;
        }
    }
}
