//! What is found in the data of any task.

use super::Finding;
use crate::seen::{Noticed, Seen};

/// Rows that are cut or repeated are a warning from this share of all rows on, in percent; some of them are in most files.
const MANY: u64 = 10;

/// Finds what the numbers of the data say.
pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let of = |noticed: &Noticed| {
        let (unit, first) = (seen.unit, noticed.first.first());
        let first = first.map_or_else(String::new, |first| format!(", first at {first}"));
        format!("{} of {} {unit}{first}", noticed.count, seen.rows)
    };
    let is_many = |noticed: &Noticed| noticed.count * 100 > MANY * seen.rows;
    if seen.masked.count > 0 {
        findings.push(Finding::warning(
            "masked_rows",
            format!("nothing is learned of {}: no token of them is predicted", of(&seen.masked)),
            "look at them with `reparam data inspect`; a row needs a response that begins within train.sequence_length tokens",
        ));
    }
    if seen.truncated.count > 0 {
        let message = format!(
            "{} do not fit {} tokens: a part is cut off or learned without what is before it",
            of(&seen.truncated),
            seen.sequence_length
        );
        findings.push(match is_many(&seen.truncated) {
            true => Finding::warning(
                "truncated_rows",
                message,
                format!(
                    "raise train.sequence_length; 95 % of the rows have at most {} tokens, the longest has {}",
                    seen.lengths.p95, seen.lengths.max
                ),
            ),
            false => Finding::note("truncated_rows", message),
        });
    }
    let left_out = |noticed: &Noticed, of: String| {
        let first = noticed.first.first();
        let first = first.map_or_else(String::new, |first| format!(", first at {first}"));
        format!(
            "{} {of} are longer than {} tokens and left out{first}",
            noticed.count, seen.sequence_length
        )
    };
    let dropped = &seen.dropped;
    if dropped.count > 0 {
        let all = seen.rows + dropped.count;
        let message = left_out(dropped, format!("of {all} {}", seen.unit));
        findings.push(match dropped.count * 100 > MANY * all {
            true => Finding::warning(
                "dropped_rows",
                message,
                "raise train.sequence_length, or set data.too_long to \"truncate\" to learn their beginnings",
            ),
            false => Finding::note("dropped_rows", message),
        });
    }
    if seen.held_out_dropped.count > 0 {
        findings.push(Finding::note(
            "held_out_dropped_rows",
            left_out(
                &seen.held_out_dropped,
                format!("{} of data.eval", seen.unit),
            ),
        ));
    }
    if seen.duplicates.count > 0 {
        let message = format!("{} say what an earlier one says", of(&seen.duplicates));
        findings.push(match is_many(&seen.duplicates) {
            true => Finding::warning(
                "duplicates",
                message,
                "remove them, unless they are meant to weigh more",
            ),
            false => Finding::note("duplicates", message),
        });
    }
    let held_out = &seen.held_out_duplicates;
    if held_out.count > 0 {
        let first = held_out.first.first();
        let first = first.map_or_else(String::new, |first| format!(", first at {first}"));
        findings.push(Finding::warning(
            "held_out_duplicates",
            format!(
                "{} held-out {} are learned from as well{first}: they measure what was learned by heart",
                held_out.count, seen.unit
            ),
            "remove them from data.eval, or set data.eval_fraction in its place, which keeps them apart",
        ));
    }
    let without: Vec<&str> = (seen.labels.iter())
        .filter(|label| label.count == 0)
        .map(|label| label.label.as_str())
        .collect();
    if !without.is_empty() {
        findings.push(Finding::warning(
            "labels_without_rows",
            format!(
                "{} of {} labels of the model are in no row that is learned: {}",
                without.len(),
                seen.labels.len(),
                first_names(&without)
            ),
            "add rows that have them, or take a base whose head has no other labels than the data",
        ));
    }
    findings
}

/// The first names of a list, and how many there are more.
pub(super) fn first_names(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
