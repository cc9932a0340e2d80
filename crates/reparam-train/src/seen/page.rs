//! What a model will see, as a page.

use super::{Lengths, Noticed, Seen, SeenPart, SeenRow};
use crate::markup::escaped;
use crate::preflight::Finding;

/// From a telephone to print, light and dark. What is learned stands out; what is only read is pale.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#222;--paper:#fff;--line:#ccc;--pale:#777;--learned:31,136,61;--special:130,80,223}
@media (prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#16181c;--line:#3c4048;--pale:#999;--learned:46,160,67;--special:163,113,247}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.5rem}
h2{font-size:1.1rem;margin:1.2rem 0 .2rem;overflow-wrap:anywhere}
p{margin:.2rem 0}
table{border-collapse:collapse;margin:.5rem 0}
td,th{text-align:left;padding:.1rem .8rem .1rem 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
td.n{text-align:right}
meter{width:10rem}
.text{line-height:1.8;white-space:pre-wrap;overflow-wrap:anywhere;border-top:1px solid var(--line);padding-top:.4rem;color:var(--pale)}
.learned{color:var(--ink);background:rgba(var(--learned),.25);border-radius:.2rem}
.special{outline:1px solid rgba(var(--special),.8);border-radius:.2rem;font-family:ui-monospace,monospace;font-size:.9em}
.label{color:rgb(var(--special));font-size:.8em}
";

/// Returns one HTML page without scripts that loads nothing: the numbers of the data, what was found, and the first rows with what
/// is learned marked.
#[must_use]
pub fn page(title: &str, seen: &Seen, findings: &[Finding]) -> String {
    let title = escaped(title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    numbers(&mut page, seen);
    lengths(&mut page, seen.unit, &seen.lengths);
    let files = (seen.files.iter()).map(|file| {
        let name = file.file.display().to_string();
        [name, file.rows.to_string(), file.tokens.to_string()]
    });
    table(&mut page, "Files", ["file", seen.unit, "tokens"], files);
    let labels = (seen.labels.iter()).map(|label| [label.label.clone(), label.count.to_string()]);
    table(&mut page, "Labels", ["label", "count"], labels);
    let findings = findings.iter().map(|finding| {
        let hint = finding.hint.clone().unwrap_or_default();
        [
            finding.severity.name().to_owned(),
            finding.message.clone(),
            hint,
        ]
    });
    table(&mut page, "Findings", ["", "what", "what to do"], findings);
    for example in &seen.examples {
        row(&mut page, example);
    }
    page += "</main>\n</body>\n</html>\n";
    page
}

fn numbers(page: &mut String, seen: &Seen) {
    let noticed = |noticed: &Noticed| {
        let first = match noticed.first.is_empty() {
            true => String::new(),
            false => format!(" (first {})", noticed.first.join(", ")),
        };
        format!("{}{first}", noticed.count)
    };
    let mut rows = vec![
        [seen.unit.to_owned(), seen.rows.to_string()],
        ["tokens".to_owned(), seen.tokens.to_string()],
    ];
    let mut add = |name: &str, value: String| rows.push([name.to_owned(), value]);
    if let Some(labelled) = seen.labelled_tokens {
        let share = 100.0 * labelled as f64 / seen.tokens.max(1) as f64;
        add("labelled tokens", format!("{labelled} ({share:.1} %)"));
    }
    add("truncated", noticed(&seen.truncated));
    for (name, dropped) in [
        ("left out as too long", &seen.dropped),
        ("left out of data.eval", &seen.held_out_dropped),
    ] {
        if dropped.count > 0 {
            add(name, noticed(dropped));
        }
    }
    add("nothing learned of", noticed(&seen.masked));
    add("duplicates", noticed(&seen.duplicates));
    add("held out and learned", noticed(&seen.held_out_duplicates));
    if let Some(fill) = seen.fill {
        add("blocks filled", format!("{:.1} %", 100.0 * fill));
    }
    table(page, "Data", ["", ""], rows.into_iter());
}

fn lengths(page: &mut String, unit: &str, lengths: &Lengths) {
    *page += &format!(
        "<h2>Lengths in tokens</h2>\n<p>min {}, median {}, mean {:.1}, 95 % {}, max {}</p>\n<table>\n",
        lengths.min, lengths.median, lengths.mean, lengths.p95, lengths.max
    );
    let most = lengths
        .histogram
        .iter()
        .map(|bin| bin.rows)
        .max()
        .unwrap_or(1);
    for bin in &lengths.histogram {
        *page += &format!(
            "<tr><td>{} - {}</td><td><meter max=\"{most}\" value=\"{}\"></meter></td><td class=\"n\">{} {}</td></tr>\n",
            bin.from,
            bin.to,
            bin.rows,
            bin.rows,
            escaped(unit)
        );
    }
    *page += "</table>\n";
}

/// Writes a table, unless it is empty.
fn table<const N: usize>(
    page: &mut String,
    title: &str,
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    *page += &format!("<h2>{}</h2>\n<table>\n", escaped(title));
    if head.iter().any(|name| !name.is_empty()) {
        let names = head.map(|name| format!("<th>{}</th>", escaped(name)));
        *page += &format!("<tr>{}</tr>\n", names.concat());
    }
    for row in rows {
        let cells = row.map(|cell| format!("<td>{}</td>", escaped(&cell)));
        *page += &format!("<tr>{}</tr>\n", cells.concat());
    }
    *page += "</table>\n";
}

fn row(page: &mut String, row: &SeenRow) {
    let place = row.place.as_deref().unwrap_or("row");
    *page += &format!("<h2>{}</h2>\n<p>{} tokens", escaped(place), row.tokens);
    if let Some(label) = &row.label {
        *page += &format!("; {}", escaped(label));
    }
    *page += "</p>\n<p class=\"text\">";
    row.parts.iter().for_each(|one| part(page, one));
    *page += "</p>\n";
}

fn part(page: &mut String, part: &SeenPart) {
    let lines: Vec<String> = part.text.split('\n').map(escaped).collect();
    let text = lines.join("\n");
    let classes = [(part.learned, "learned"), (part.special, "special")];
    let classes: Vec<&str> = (classes.into_iter())
        .filter_map(|(is, class)| is.then_some(class))
        .collect();
    *page += &match classes.is_empty() {
        true => text,
        false => format!("<span class=\"{}\">{text}</span>", classes.join(" ")),
    };
    if let Some(label) = &part.label {
        *page += &format!("<span class=\"label\">[{}]</span>", escaped(label));
    }
}
