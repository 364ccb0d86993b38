//! Cost of reading a key from a body: from an attribute of XML, beside a member of JSON of the same
//! size. `cargo run --release --example key-cost` prints microseconds for each; docs/performance.md
//! has the figures.

use std::hint::black_box;
use std::time::Instant;

use http::HeaderMap;
use oncegate::place::{Place, RequestValues};

/// Readings of a round; the fastest of all rounds counts.
const READINGS: u32 = 20_000;
const ROUNDS: u32 = 15;

fn main() {
    let headers = HeaderMap::new();
    println!("{:>8}  {:>10}  {:>10}  {:>6}", "bytes", "JSON (µs)", "XML (µs)", "ratio");
    for members in [4, 16, 64, 256] {
        let (json, xml) = bodies(members);
        let cost = |place: &str, body: &[u8]| {
            let place = Place::parse(place).expect("a place");
            let round = || {
                let start = Instant::now();
                for _ in 0..READINGS / members {
                    let values = RequestValues::new(&headers, None, &[], black_box(body));
                    let text = values.text(&place).expect("a readable body").expect("a value");
                    assert_eq!(black_box(text), "8e03978e-40d5-43e8-bc93-6894a57f9324");
                }
                start.elapsed().as_secs_f64() * 1e6 / f64::from(READINGS / members)
            };
            (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
        };
        let (json_cost, xml_cost) =
            (cost("/requestId", &json), cost("xml:/Request/@requestId", &xml));
        let ratio = xml_cost / json_cost;
        println!("{:>8}  {json_cost:>10.2}  {xml_cost:>10.2}  {ratio:>6.2}", json.len());
    }
}

/// A JSON and an XML body of the same size with as many members.
fn bodies(members: u32) -> (Vec<u8>, Vec<u8>) {
    let id = "8e03978e-40d5-43e8-bc93-6894a57f9324";
    let mut xml = format!("<Request requestId=\"{id}\">");
    let mut json = format!("{{\"requestId\":\"{id}\"");
    for member in 0..members {
        xml.push_str(&format!("<Member{member}>voucher code {member}</Member{member}>"));
        json.push_str(&format!(",\"Member{member}\":\"voucher code {member}\""));
    }
    xml.push_str("</Request>");
    json.push_str(",\"pad\":\"");
    while json.len() + 2 < xml.len() {
        json.push('x');
    }
    json.push_str("\"}");
    (json.into_bytes(), xml.into_bytes())
}
