//! Explanations as a page.

use super::Explanation;
use crate::markup::escaped;
use crate::numbers::measured;

/// From a telephone to print, light and dark. What counts for the target is green, what counts against it red.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#222;--paper:#fff;--line:#ccc;--for:31,136,61;--against:207,34,46}
@media (prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#16181c;--line:#3c4048;--for:46,160,67;--against:248,81,73}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.5rem}
h2{font-size:1.1rem;margin:1.2rem 0 .2rem;overflow-wrap:anywhere}
p{margin:.2rem 0}
.text{font-size:1.15rem;line-height:2;white-space:pre-wrap;overflow-wrap:anywhere;border-top:1px solid var(--line);padding-top:.4rem}
.text span{border-radius:.2rem;padding:.1rem}
";

/// Returns one HTML page without scripts that loads nothing: each text with its words coloured by what they count.
///
/// The colour of a word is as strong as what it counts, relative to the word of its text that counts most.
#[must_use]
pub fn page(explanations: &[Explanation]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Explanation</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Explanation</h1>\n"
    );
    for explanation in explanations {
        section(&mut page, explanation);
    }
    page += "</main>\n</body>\n</html>\n";
    page
}

fn section(page: &mut String, explanation: &Explanation) {
    let Explanation {
        method,
        target,
        score,
        probability,
        ..
    } = explanation;
    *page += &format!("<h2>{}</h2>\n", escaped(target));
    *page += &format!(
        "<p>{method}; logit {}, probability {}",
        measured(*score, 4),
        measured(*probability, 4)
    );
    if let Some(baseline) = explanation.baseline {
        *page += &format!("; baseline {baseline}");
    }
    if let Some(score) = explanation.baseline_score {
        *page += &format!(" with logit {}", measured(score, 4));
    }
    if let Some(error) = explanation.completeness_error {
        *page += &format!("; completeness error {error:.1e}");
    }
    *page += "</p>\n<p class=\"text\">";
    let attributions = explanation
        .pieces
        .iter()
        .filter_map(|(_, attribution)| *attribution);
    let most = attributions.map(f64::abs).fold(0.0, f64::max);
    for (text, attribution) in &explanation.pieces {
        let lines: Vec<String> = text.split('\n').map(escaped).collect();
        let text = lines.join("\n");
        let Some(attribution) = attribution else {
            *page += &text;
            continue;
        };
        let side = if *attribution < 0.0 { "against" } else { "for" };
        let strength = if most > 0.0 {
            0.75 * attribution.abs() / most
        } else {
            0.0
        };
        *page += &format!(
            "<span style=\"background:rgba(var(--{side}),{strength:.3})\" title=\"{}\">{text}</span>",
            measured(*attribution, 4)
        );
    }
    *page += "</p>\n";
}
