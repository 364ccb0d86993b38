//! The figures as markdown.

use std::fmt::Write;

use super::fresh::{Row, Wanted};
use super::wake::Waits;
use crate::load::Sample;
use crate::report::{median, met};

/// Wanted at most, in milliseconds: the median wait, and every wait.
const MEDIAN_WAIT: f64 = 5.0;
const LONGEST_WAIT: f64 = 50.0;

/// One line per server.
pub(super) fn fresh(rows: &[Row]) -> String {
    let mut text = String::from(
        "| fresh requests through | requests/s | spread | CPU µs per request | gateway | store \
         | rate | CPU | wanted | met |\n|---|---:|---:|---:|---:|---:|---:|---:|---|---|\n",
    );
    for row in rows {
        let figure = |of: fn(&Sample) -> f64| median(row.samples.iter().map(of).collect());
        let rates = || row.samples.iter().map(|sample| sample.rate);
        let _ = write!(
            text,
            "| {} | {:.0} | {:.0}–{:.0} | {:.1} | {:.1} | {:.1} |",
            row.name,
            figure(rate),
            rates().fold(f64::MAX, f64::min),
            rates().fold(0.0, f64::max),
            figure(cpu),
            figure(|sample| sample.cpu - sample.helpers),
            figure(|sample| sample.helpers),
        );
        let against = row.against.as_ref();
        let other = against.and_then(|(name, wanted)| Some((find(rows, name)?, *wanted)));
        let Some((other, wanted)) = other else {
            // It is what others are compared with, or that was not measured.
            text.push_str(" | | | |\n");
            continue;
        };
        let ratio = |of: fn(&Sample) -> f64| {
            let pairs = row.samples.iter().zip(&other.samples);
            median(pairs.map(|(sample, other)| of(sample) / of(other)).collect())
        };
        let (faster, dearer) = (ratio(rate), ratio(cpu));
        let _ = write!(text, " {faster:.2} × | {dearer:.2} × |");
        let _ = match wanted {
            Wanted::Nothing => writeln!(text, " | |"),
            Wanted::RateAndCpu => {
                let (fast, cheap) = (met(faster >= 1.0), met(dearer <= 1.0));
                let than = "rate ≥ 1, CPU ≤ 1 × nginx + Lua + Redis";
                writeln!(text, " {than} | {fast}, {cheap} |")
            }
            Wanted::Rate => writeln!(text, " rate ≥ 1 × one | {} |", met(faster >= 1.0)),
        };
    }
    text
}

fn find<'r>(rows: &'r [Row], name: &str) -> Option<&'r Row> {
    rows.iter().find(|row| row.name == name)
}

fn rate(sample: &Sample) -> f64 {
    sample.rate
}

fn cpu(sample: &Sample) -> f64 {
    sample.cpu
}

/// One line per store and beginning.
pub(super) fn waits(found: &[(&str, Waits)]) -> String {
    let mut text = String::from(
        "| a duplicate on the other replica is answered | median | 99 % | longest | wanted | met |\n\
         |---|---:|---:|---:|---|---|\n",
    );
    for (kind, waits) in found {
        let outcome = line(&waits.since_outcome);
        let (middle, longest) = (median(waits.since_outcome.clone()), most(&waits.since_outcome));
        let met = met(middle <= MEDIAN_WAIT && longest <= LONGEST_WAIT);
        let wanted = format!("median ≤ {MEDIAN_WAIT} ms, all ≤ {LONGEST_WAIT} ms");
        let _ =
            writeln!(text, "| {kind}, after the backend's answer |{outcome} {wanted} | {met} |");
        let answer = line(&waits.since_answer);
        let _ = writeln!(text, "| {kind}, after the first client's answer |{answer} | |");
    }
    text
}

fn line(waits: &[f64]) -> String {
    let mut sorted = waits.to_vec();
    sorted.sort_by(f64::total_cmp);
    // The smallest value that at least 99 of 100 are not above.
    let rank = (sorted.len() * 99).div_ceil(100).max(1) - 1;
    let high = sorted.get(rank).copied().unwrap_or(f64::NAN);
    let middle = median(sorted);
    format!(" {middle:.2} ms | {high:.2} ms | {:.2} ms |", most(waits))
}

fn most(waits: &[f64]) -> f64 {
    waits.iter().copied().fold(f64::MIN, f64::max)
}
