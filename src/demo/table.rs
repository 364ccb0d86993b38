//! The counts of the demo and their tables.

use std::collections::BTreeMap;

use serde::Serialize;

use super::rewards::{self, BatchCall};
use super::scene::Sale;
use super::till::ScreenMessage;

/// The results of both runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Results of tills that call the backend directly.
    pub without: RunReport,
    /// Results with the gateway in between.
    pub with: RunReport,
}

/// The results of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// Counts of vouchers, which the backend redeems once.
    pub vouchers: Counts,
    /// Counts of points, which the backend gives on every request.
    pub points: Counts,
    /// The batches of rewards, call by call.
    pub batches: Vec<BatchCall>,
}

/// Numbers counted at the tills, in the shop's network and in the backend's own books. Every sale
/// ends in exactly one of `confirmed`, `refused`, `disputes`, `unknown` and `failed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Sales rung up.
    pub sales: u64,
    /// Requests that the tills sent for them.
    pub requests: u64,
    /// Requests that reached the backend.
    pub calls: u64,
    /// Redemptions or awards in the backend's books.
    pub executed: u64,
    /// Sales with a success at the till and no contrary message.
    pub confirmed: u64,
    /// Sales rightly refused: the voucher was spent by another sale.
    pub refused: u64,
    /// Sales refused although their own redemption was executed.
    pub disputes: u64,
    /// Executions beyond one for a sale.
    pub doubles: u64,
    /// Sales whose outcome nobody has found out.
    pub unknown: u64,
    /// Lost answers that were settled: by asking the backend, by undoing the call, by an operator.
    pub settled: u64,
    /// Sales without any of these results.
    pub failed: u64,
    /// Repeats that the gateway answered itself instead of asking the backend again.
    pub prevented: u64,
}

/// The end of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    Confirmed,
    Refused,
    Dispute,
    Unknown,
    Failed,
}

impl Ending {
    fn words(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Refused => "rightly refused",
            Self::Dispute => "told \"already used\": dispute",
            Self::Unknown => "told \"not known\": operator",
            Self::Failed => "without an answer",
        }
    }

    /// The end of `sale`, given the number of its executions in the backend's books.
    fn of(sale: &Sale, executions: u64) -> Self {
        let read = |reading| sale.readings.contains(&reading);
        if read(ScreenMessage::AlreadyUsed) {
            if executions > 0 { Self::Dispute } else { Self::Refused }
        } else if read(ScreenMessage::Confirmed) || read(ScreenMessage::Recovered) {
            Self::Confirmed
        } else if read(ScreenMessage::Unknown) {
            Self::Unknown
        } else {
            Self::Failed
        }
    }
}

impl Counts {
    /// Adds a sale with `executions` entries in the backend's books and returns its end.
    pub(super) fn add(&mut self, sale: &Sale, executions: u64) -> Ending {
        let ending = Ending::of(sale, executions);
        self.sales += 1;
        self.settled += u64::from(sale.settled.is_some());
        self.executed += executions;
        self.doubles += executions.saturating_sub(1);
        *match ending {
            Ending::Confirmed => &mut self.confirmed,
            Ending::Refused => &mut self.refused,
            Ending::Dispute => &mut self.disputes,
            Ending::Unknown => &mut self.unknown,
            Ending::Failed => &mut self.failed,
        } += 1;
        ending
    }

    const fn columns(&self) -> [(&'static str, u64); 11] {
        [
            ("sales", self.sales),
            ("requests", self.requests),
            ("calls", self.calls),
            ("executed", self.executed),
            ("confirmed", self.confirmed),
            ("refused", self.refused),
            ("unknown", self.unknown),
            ("settled", self.settled),
            ("disputes", self.disputes),
            ("doubles", self.doubles),
            ("prevented", self.prevented),
        ]
    }
}

impl Report {
    /// Checks the promises of the gateway against the counts.
    ///
    /// # Errors
    /// A sentence that names the broken promise.
    pub fn check(&self) -> Result<(), String> {
        let parts = [&self.without.vouchers, &self.without.points];
        let with = [&self.with.vouchers, &self.with.points];
        for counts in parts.into_iter().chain(with) {
            let ended = counts.confirmed + counts.refused + counts.disputes + counts.unknown;
            require(counts.failed == 0, "a sale ended without any answer")?;
            require(ended == counts.sales, "the endings do not add up to the sales")?;
        }
        for (counts, without) in with.into_iter().zip(parts) {
            require(counts.sales == without.sales, "the two tellings had different sales")?;
            require(counts.doubles == 0, "the backend executed a sale twice behind the gateway")?;
            require(counts.unknown == 0, "an outcome that could be known was not found out")?;
            require(counts.disputes == 0, "a till behind the gateway was refused its own sale")?;
            require(
                counts.executed == counts.confirmed + counts.unknown,
                "the backend's books and the tills behind the gateway disagree",
            )?;
        }
        rewards::check(&self.with.batches).or_else(|broken| require(false, broken))
    }

    /// The table of the batches, for 100 columns.
    pub fn batches(&self) -> String {
        rewards::table(&self.without.batches, &self.with.batches)
    }

    /// The table, for 100 columns.
    pub fn table(&self) -> String {
        let rows = [
            ("without oncegate", None),
            (" vouchers", Some(&self.without.vouchers)),
            (" points", Some(&self.without.points)),
            ("with oncegate", None),
            (" vouchers", Some(&self.with.vouchers)),
            (" points", Some(&self.with.points)),
        ];
        let mut table = format!("{:<9}", "");
        for (name, _) in Counts::default().columns() {
            table.push_str(&cell(name, name));
        }
        let width = table.len();
        table.push('\n');
        table.push_str(&"-".repeat(width));
        for (name, counts) in rows {
            table.push_str(&format!("\n{name:<9}"));
            for (column, value) in counts.iter().flat_map(|counts| counts.columns()) {
                table.push_str(&cell(column, &value.to_string()));
            }
            table.truncate(table.trim_end().len());
        }
        table.push('\n');
        table
    }
}

/// A right-aligned cell under its column's name.
fn cell(column: &str, value: &str) -> String {
    format!("{value:>width$}", width = column.len().max(5) + 1)
}

fn require(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("the demo's promise is broken: {otherwise}")) }
}

/// The line under a scene's title: `3 confirmed`.
pub(super) fn endings(endings: &[Ending]) -> String {
    let mut counted: BTreeMap<Ending, usize> = BTreeMap::new();
    for ending in endings {
        *counted.entry(*ending).or_default() += 1;
    }
    let words: Vec<_> =
        counted.iter().map(|(ending, count)| format!("{count} {}", ending.words())).collect();
    words.join(", ")
}
