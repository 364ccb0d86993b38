//! A reward engine as batch APIs have them: limits for each customer, points that are spent for
//! each unit it issues, and no memory of request ids at all. It counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Act, Backend, Gateway, Request, Response, Seen, Setup, answer};

/// Where batches go.
const PATH: &str = "/issue";

/// What was issued so far.
#[derive(Debug, Default)]
pub(crate) struct Books {
    limits: BTreeMap<String, u64>,
    taken: BTreeMap<(String, String), u64>,
    /// Units issued for each request id.
    pub(crate) issued: BTreeMap<String, u64>,
    /// Points spent.
    pub(crate) points: u64,
    /// What arrived: `R1x2,R2x2` for each call.
    pub(crate) sent: Vec<String>,
    coupons: u64,
}

/// The engine and the backend it answers through.
pub(crate) struct Rewards {
    /// The backend.
    pub(crate) backend: Backend,
    books: Arc<Mutex<Books>>,
}

impl Rewards {
    /// Without limits, until told.
    pub(crate) fn start() -> Self {
        let rewards = Self { backend: Backend::start(), books: Arc::default() };
        rewards.honest();
        rewards
    }

    /// A gateway before it, whose route `issue` has the profile and these further lines.
    pub(crate) fn setup(&self, lines: &str) -> Setup {
        Setup::before(&self.backend).route(&format!(
            "name = \"issue\"\nmethods = [\"POST\"]\npath = \"{PATH}\"\nmode = \"items\"\n\
             profile = \"capillary\"\n{lines}"
        ))
    }

    /// That gateway, running.
    pub(crate) fn gateway(&self, lines: &str) -> Gateway {
        self.setup(lines).start()
    }

    /// A customer may have this many of a reward in all.
    pub(crate) fn limit(&self, reward: &str, units: u64) {
        self.books.lock().unwrap().limits.insert(reward.to_owned(), units);
    }

    /// Without limits from now on.
    pub(crate) fn unlimited(&self) {
        self.books.lock().unwrap().limits.clear();
    }

    /// Answers as it issues.
    pub(crate) fn honest(&self) {
        self.answering(|_, status, body| answer(status, &body.to_string()));
    }

    /// Issues, and then does with the honest answer what `act` says.
    pub(crate) fn answering(&self, act: impl Fn(&Seen, u16, Value) -> Act + Send + Sync + 'static) {
        let books = Arc::clone(&self.books);
        self.backend.script(move |seen| {
            let (status, body) = books.lock().unwrap().issue(&seen.body);
            act(seen, status, body)
        });
    }

    /// Issues, and answers with what `edit` makes of the honest body, under `status`.
    pub(crate) fn editing(&self, status: u16, edit: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.answering(move |_, _, mut body| {
            edit(&mut body);
            answer(status, &body.to_string())
        });
    }

    /// Issues nothing, and answers this.
    pub(crate) fn refusing(&self, status: u16, body: &'static str) {
        let books = Arc::clone(&self.books);
        self.backend.script(move |seen| {
            books.lock().unwrap().note(&seen.body);
            answer(status, body)
        });
    }

    /// Looks at the books.
    pub(crate) fn books<T>(&self, look: impl FnOnce(&Books) -> T) -> T {
        look(&self.books.lock().unwrap())
    }

    /// Points spent so far.
    pub(crate) fn points(&self) -> u64 {
        self.books(|books| books.points)
    }

    /// What arrived, call by call.
    pub(crate) fn sent(&self) -> Vec<String> {
        self.books(|books| books.sent.clone())
    }

    /// Units issued for a request id.
    pub(crate) fn issued(&self, id: &str) -> u64 {
        self.books(|books| books.issued.get(id).copied().unwrap_or(0))
    }
}

/// Points of a unit: the number in the reward's name, times five.
fn worth(reward: &str) -> u64 {
    5 * reward.trim_start_matches('R').parse::<u64>().unwrap_or(1)
}

impl Books {
    fn note(&mut self, body: &[u8]) -> Vec<(String, String, u64)> {
        let batch: Value = serde_json::from_slice(body).expect("the gateway sends JSON");
        let items = batch["rewards"].as_array().cloned().unwrap_or_else(|| vec![batch.clone()]);
        let items: Vec<(String, String, u64)> = items
            .iter()
            .map(|item| {
                let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
                (text("requestId"), text("rewardId"), item["quantity"].as_u64().unwrap_or(1))
            })
            .collect();
        let sent: Vec<String> =
            items.iter().map(|(_, reward, units)| format!("{reward}x{units}")).collect();
        self.sent.push(sent.join(","));
        items
    }

    fn issue(&mut self, body: &[u8]) -> (u16, Value) {
        let batch: Value = serde_json::from_slice(body).expect("the gateway sends JSON");
        let customer = batch["mobile"].as_str().unwrap_or_default().to_owned();
        let mut rows = Vec::new();
        let mut whole = true;
        for (id, reward, wanted) in self.note(body) {
            let taken = self.taken.entry((customer.clone(), reward.clone())).or_default();
            let limit = self.limits.get(&reward).copied().unwrap_or(u64::MAX);
            let units = wanted.min(limit.saturating_sub(*taken));
            *taken += units;
            self.points += units * worth(&reward);
            *self.issued.entry(id.clone()).or_default() += units;
            let coupons: Vec<Value> = (0..units)
                .map(|_| {
                    self.coupons += 1;
                    let points = worth(&reward).to_string();
                    json!({ "pointsRedeemed": points, "couponCode": format!("C{}", self.coupons) })
                })
                .collect();
            whole &= units == wanted;
            rows.push(json!({
                "status": status(units, wanted),
                "rewardId": reward,
                "requestedQuantity": wanted,
                "quantity": units,
                "requestId": id,
                "intouch": coupons,
                "promotions": [],
                "vendor": [],
            }));
        }
        let top = if whole { status(1, 1) } else { status(1, 2) };
        (if whole { 200 } else { 400 }, json!({ "status": top, "rewards": rows }))
    }
}

fn status(units: u64, wanted: u64) -> Value {
    let (code, message) = match (units, wanted - units) {
        (_, 0) => (200, "Reward issued successfully"),
        (0, _) => (8003, "fail to issue reward"),
        (_, _) => (8010, "Reward issued partially"),
    };
    json!({ "success": code == 200, "code": code, "message": message })
}

/// A batch of a customer: `[(id, reward, quantity)]`.
pub(crate) fn batch(mobile: &str, items: &[(&str, &str, u64)]) -> String {
    let items: Vec<String> = items
        .iter()
        .map(|(id, reward, quantity)| {
            format!(r#"{{"rewardId":"{reward}","quantity":{quantity},"requestId":"{id}"}}"#)
        })
        .collect();
    format!(r#"{{"mobile":"{mobile}","rewards":[{}]}}"#, items.join(","))
}

/// A request with this body.
pub(crate) fn issue(body: &str) -> Request {
    Request::new("POST", PATH).json(body)
}

/// `requestId: issued/requested code` of each row, and the code of the whole.
pub(crate) fn rows(reply: &Response) -> String {
    let body = reply.json();
    let rows: Vec<String> = body["rewards"]
        .as_array()
        .unwrap_or_else(|| panic!("no rows in {reply:?}"))
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].to_string().replace('"', "");
            let (id, units, wanted) =
                (text("requestId"), text("quantity"), text("requestedQuantity"));
            format!("{id}:{units}/{wanted} {}", row["status"]["code"])
        })
        .collect();
    format!("{} = {}", rows.join(", "), body["status"]["code"])
}

/// How many coupons a row shows.
pub(crate) fn coupons(reply: &Response, row: usize) -> usize {
    reply.json()["rewards"][row]["intouch"].as_array().map_or(0, Vec::len)
}
