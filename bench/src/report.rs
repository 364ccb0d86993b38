//! The figures as markdown.

use std::fmt::Write;

use crate::http::Row;
use crate::load::Sample;
use crate::memory::Found;

const MIB: f64 = 1024.0 * 1024.0;

/// Wanted at most: memory at rest, and the time to start with a million records.
const IDLE_MIB: f64 = 30.0;
const START_SECONDS: f64 = 2.0;

/// One line per case, with the ratio to its reference.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| case | CPU µs per request | spread | requests/s | core busy | ratio | wanted | met |\n\
         |---|---:|---:|---:|---:|---:|---:|---|\n",
    );
    for row in rows {
        let cpu = of(row, |sample| sample.cpu);
        let (least, most) =
            row.samples.iter().fold((f64::MAX, 0.0_f64), |(least, most), sample| {
                (least.min(sample.cpu), most.max(sample.cpu))
            });
        let _ = write!(
            text,
            "| {} | {cpu:.1} | {least:.1}–{most:.1} | {:.0} | {:.0} % |",
            row.case.name,
            of(row, |sample| sample.rate),
            of(row, |sample| sample.busy) * 100.0,
        );
        let reference = row.case.wanted.as_ref().and_then(|wanted| {
            let found = rows.iter().find(|other| other.case.name == wanted.reference)?;
            Some((wanted, cpu / of(found, |sample| sample.cpu)))
        });
        match reference {
            None => text.push_str(" | | |\n"),
            Some((wanted, ratio)) => {
                let met = met(ratio <= wanted.at_most);
                let _ = writeln!(
                    text,
                    " {ratio:.2} × {} | ≤ {} | {met} |",
                    wanted.reference, wanted.at_most
                );
            }
        }
    }
    text
}

fn of(row: &Row, figure: impl Fn(&Sample) -> f64) -> f64 {
    median(row.samples.iter().map(figure).collect())
}

/// Memory and start time.
pub(crate) fn memory(idle: u64, found: &Found) -> String {
    let idle = idle as f64 / MIB;
    format!(
        "\n| memory and start | found | wanted | met |\n|---|---:|---:|---|\n\
         | resident, idle | {idle:.1} MiB | < {IDLE_MIB} MiB | {} |\n\
         | resident, having stored {} records | {:.1} MiB | | |\n\
         | resident, after a start with them | {:.1} MiB | | |\n\
         | start to first replay, after SIGTERM | {:.0} ms | < {START_SECONDS} s | {} |\n\
         | start to first replay, after SIGKILL | {:.0} ms | < {START_SECONDS} s | {} |\n",
        met(idle < IDLE_MIB),
        found.records,
        found.filled as f64 / MIB,
        found.restarted as f64 / MIB,
        found.start.as_secs_f64() * 1e3,
        met(found.start.as_secs_f64() < START_SECONDS),
        found.start_after_kill.as_secs_f64() * 1e3,
        met(found.start_after_kill.as_secs_f64() < START_SECONDS),
    )
}

pub(crate) fn met(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// The middle value; of an even number, the mean of the middle two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
