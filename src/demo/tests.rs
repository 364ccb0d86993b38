use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::*;

/// Sends one request to the backend as a till would.
async fn ask(backend: SocketAddr, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let method = if body.is_some() { "POST" } else { "GET" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", backend.to_string())
        .header("x-api-key", "demo")
        .body(body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string())))
        .unwrap();
    let answer = loopback::send(backend, request).await.unwrap();
    (answer.status(), serde_json::from_slice(answer.body()).unwrap())
}

fn voucher(qr: &str, receipt: &str) -> Option<Value> {
    Some(json!({ "qr": qr, "metadata": faults::metadata_of(receipt) }))
}

#[tokio::test]
async fn the_backend_redeems_a_voucher_once_and_refuses_it_afterwards() {
    let stage = Stage::set(false).await.unwrap();
    let backend = stage.backend.address;

    let (status, first) = ask(backend, REDEEM, voucher("rsg:1", "1")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(first["status"], "succeeded");
    let (status, second) = ask(backend, REDEEM, voucher("rsg:1", "1")).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(second["error"]["code"], backend::USED);

    let (_, books) = ask(backend, TRANSACTIONS, None).await;
    assert_eq!(books["data"].as_array().unwrap().len(), 1);
    assert_eq!(books["data"][0]["id"], first["transaction"]["id"]);
    assert_eq!(books["data"][0]["metadata"], "receipt_number:1");
    stage.strike().await;
}

#[tokio::test]
async fn the_backend_gives_points_each_time_it_is_asked() {
    let stage = Stage::set(false).await.unwrap();
    let award = json!({ "member": "m", "points": 50, "metadata": "receipt_number:1" });
    for expected in [50, 100] {
        let (status, answer) = ask(stage.backend.address, AWARD, Some(award.clone())).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(answer["balance"], expected);
    }
    stage.strike().await;
}

#[tokio::test]
async fn the_backend_refuses_what_it_does_not_understand() {
    let stage = Stage::set(false).await.unwrap();
    let backend = stage.backend.address;
    let (status, _) = ask(backend, REDEEM, Some(json!({ "qr": "not a voucher" }))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = ask(backend, AWARD, Some(json!([]))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = ask(backend, "/elsewhere", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    stage.strike().await;
}

#[tokio::test]
async fn a_lost_answer_is_lost_after_the_backend_has_executed() {
    let stage = Stage::set(false).await.unwrap();
    stage.plan.at_backend("7", faults::BackendFault::AnswerLost);
    let body = Bytes::from(voucher("rsg:7", "7").unwrap().to_string());
    let request = Request::post(REDEEM).header("x-api-key", "demo").body(body).unwrap();
    assert!(loopback::send(stage.backend.address, request).await.is_err());
    let (status, _) = ask(stage.backend.address, REDEEM, voucher("rsg:7", "7")).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    stage.strike().await;
}

#[tokio::test]
async fn the_story_ends_with_doubles_and_disputes_only_without_the_gateway() {
    let mut text = Vec::new();
    let mut narrator = Narrator { out: &mut text, quiet: false };
    let (report, stage) = tell(&mut narrator).await.unwrap();
    let folder = stage.folder.path().to_owned();
    stage.strike().await;
    assert!(!folder.exists(), "the store's folder is removed");

    report.check().unwrap();
    let vouchers = Counts { sales: 27, executed: 24, refused: 3, ..Counts::default() };
    let points = Counts { sales: 15, ..Counts::default() };
    let expected = Report {
        without: RunReport {
            vouchers: Counts {
                requests: 45,
                calls: 45,
                confirmed: 9,
                disputes: 15,
                ..vouchers.clone()
            },
            points: Counts {
                requests: 27,
                calls: 27,
                executed: 27,
                confirmed: 15,
                doubles: 12,
                ..points.clone()
            },
            batches: report.without.batches.clone(),
        },
        with: RunReport {
            vouchers: Counts {
                requests: 48,
                calls: 30,
                confirmed: 24,
                settled: 6,
                prevented: 18,
                ..vouchers
            },
            points: Counts {
                requests: 30,
                calls: 18,
                executed: 15,
                confirmed: 15,
                settled: 3,
                prevented: 12,
                ..points
            },
            batches: report.with.batches.clone(),
        },
    };
    let spent = |calls: &[BatchCall]| -> Vec<u64> {
        calls.iter().filter(|call| call.asked).map(|call| call.points).collect()
    };
    assert_eq!(spent(&report.without.batches), [15, 25, 55, 30, 60]);
    assert_eq!(spent(&report.with.batches), [15, 25, 30, 30, 30, 30]);
    let text = String::from_utf8(text).unwrap();
    assert_eq!(report, expected, "{text}");
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest.is_some_and(|widest| widest <= 100), "{text}");

    let page = include_str!("../../docs/demo.md").split_once("```text\n").unwrap().1;
    let shown = page.split_once("```").unwrap().0;
    assert_eq!(shown.trim(), text.trim(), "docs/demo.md shows what the demo prints");
}

#[test]
fn a_broken_promise_fails_the_demo() {
    let counts = Counts { sales: 1, executed: 1, confirmed: 1, ..Counts::default() };
    let call = |points, sent: &str, reply: &str| BatchCall {
        what: "",
        asked: true,
        sent: sent.to_owned(),
        issued: String::new(),
        points,
        reply: reply.to_owned(),
    };
    let complete = "2 of 2, 2 of 2";
    let batches = vec![
        call(30, "R1x1", complete),
        call(30, "", complete),
        call(30, "R1x2 R2x2", "not known"),
        call(30, "", "not known"),
    ];
    let telling = RunReport { vouchers: counts.clone(), points: counts, batches };
    let report = Report { without: telling.clone(), with: telling };
    assert_eq!(report.check(), Ok(()));

    let mut doubled = report.clone();
    doubled.with.points.doubles = 1;
    assert!(doubled.check().is_err());
    let mut disputed = report.clone();
    disputed.with.vouchers.confirmed = 0;
    disputed.with.vouchers.disputes = 1;
    assert!(disputed.check().is_err());
    let broken = [call(45, "", complete), call(30, "R1x1", complete), call(30, "", "nothing")];
    for call in broken {
        let mut batches = report.clone();
        batches.with.batches[1] = call;
        assert!(batches.check().is_err());
    }
    let mut guessing = report.clone();
    guessing.with.batches[3].sent = "R1x2 R2x2".to_owned();
    assert!(guessing.check().is_err());
    let mut silent = report;
    silent.without.vouchers.failed = 1;
    assert!(silent.check().is_err());
}
