//! The end of the lost answers: what the gateway cannot find out by itself goes to an operator, who
//! has looked into the backend's books, and the till asks once more.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use serde_json::{Value, json};

use super::gateway::{DemoGateway, OPERATOR};
use super::scene::{Goods, Sale, SettledBy};
use super::till::ShopNetwork;
use crate::loopback;

/// The pause between two looks at a record, and the looks at most.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS: usize = 300;

/// Settles the sales that ended with "not known".
///
/// # Errors
/// The gateway's records could not be read or changed.
pub(super) async fn settle(
    goods: Goods,
    sales: &mut [Sale],
    gateway: &DemoGateway,
    shop: &ShopNetwork,
) -> Result<(), String> {
    for sale in sales.iter_mut().filter(|sale| sale.is_unknown()) {
        let key = &sale.scan.key;
        let by = match goods {
            // Redemptions cannot be undone, and the failing backend does not list these.
            Goods::Vouchers => {
                let record = record(gateway, key).await?;
                resolve(gateway, record["id"].as_str().unwrap_or_default()).await?;
                SettledBy::Operator
            }
            // The gateway takes the points back once the call can no longer be under way.
            Goods::Points => {
                released(gateway, key).await?;
                SettledBy::Reversal
            }
        };
        sale.settled = Some(by);
        let reading = shop.ask(&sale.scan).await;
        sale.readings.push(reading);
    }
    Ok(())
}

/// Waits until the key is free.
async fn released(gateway: &DemoGateway, key: &str) -> Result<(), String> {
    for _ in 0..LOOKS {
        if record(gateway, key).await?["state"] == "released" {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err("the gateway did not undo a lost call in time".to_owned())
}

/// The record with this key, as an operator sees it.
async fn record(gateway: &DemoGateway, key: &str) -> Result<Value, String> {
    let page = ask(gateway, Request::get(format!("/api/records?key={key}")), Bytes::new()).await?;
    Ok(page["records"][0].clone())
}

async fn resolve(gateway: &DemoGateway, id: &str) -> Result<(), String> {
    let decision = json!({
        "as": "executed",
        "reason": "the transaction stands in the books",
        "by": "operator of the demo",
    });
    let request = Request::post(format!("/api/records/{id}/resolve"));
    let request = request.header(CONTENT_TYPE, "application/json");
    ask(gateway, request, Bytes::from(decision.to_string())).await.map(|_| ())
}

async fn ask(
    gateway: &DemoGateway,
    request: http::request::Builder,
    body: Bytes,
) -> Result<Value, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the demo's operator failed: {error}");
    let request = request
        .header(HOST, gateway.admin.to_string())
        .header(AUTHORIZATION, format!("Bearer {OPERATOR}"))
        .body(body)
        .map_err(|error| failed(&error))?;
    let answer = loopback::send(gateway.admin, request).await.map_err(|error| failed(&error))?;
    if !answer.status().is_success() {
        return Err(failed(&answer.status()));
    }
    serde_json::from_slice(answer.body()).map_err(|error| failed(&error))
}
