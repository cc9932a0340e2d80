//! A page of a table, settings and pictures.

use crate::markup::escaped;

/// How the page looks: from a telephone, where a row of the table becomes a list, to print, light and dark.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#222;--paper:#fff;--line:#ccc;--strong:#666;--best:#e8f3ea}
@media (prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#16181c;--line:#3c4048;--strong:#8a8f98;--best:#1d3325}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:76rem;margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:1rem 0 .3rem}
p{margin:.3rem 0;overflow-wrap:anywhere}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,28rem),1fr));gap:1rem 2rem;margin-top:1rem}
figure{margin:0}
svg{display:block;width:100%;height:auto}
.wide{overflow-x:auto;margin-top:1rem}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
tbody th{font-weight:normal;overflow-wrap:anywhere}
thead th{border-bottom:2px solid var(--strong)}
.n{text-align:right}
.best{background:var(--best)}
.best th{font-weight:bold}
details{margin-top:1rem}
dl{display:grid;grid-template-columns:auto 1fr;gap:.1rem 1rem;font-size:.9rem}
dd{margin:0;overflow-wrap:anywhere}
@media (max-width:44rem){
thead{display:none}
table,tbody,tr,th,td{display:block}
tr{border-bottom:2px solid var(--strong);padding:.4rem 0}
th,td{border:0;padding:.1rem .4rem}
td,.n{display:flex;justify-content:space-between;gap:1rem;text-align:left}
td::before{content:attr(data-label)}
}
@media print{body{margin:0;max-width:none}figure,tr{break-inside:avoid}}
";

/// A table. The first cell of a row is its heading. A column in which every cell is a number or a dash is aligned to the right.
pub(super) struct Table<'a, const N: usize> {
    pub(super) header: &'a [&'a str; N],
    pub(super) rows: &'a [[String; N]],
    /// The row that is marked.
    pub(super) best: Option<usize>,
}

/// What is on a page.
pub(super) struct Page<'a, const N: usize, const M: usize> {
    /// Its heading.
    pub(super) title: &'a str,
    /// What is said below it, a paragraph each.
    pub(super) facts: &'a [String],
    /// What settings give over several seeds, above all runs.
    pub(super) over_seeds: Option<Table<'a, M>>,
    pub(super) table: Table<'a, N>,
    /// A heading and a picture each. The picture goes into the page as it is and must come from
    /// [`picture`](crate::plot::picture); all other text is escaped.
    pub(super) sections: &'a [(String, String)],
    /// Keys and values, in a list that can be opened.
    pub(super) settings: &'a [(String, String)],
}

/// Returns one HTML page without scripts that loads nothing.
pub(super) fn html<const N: usize, const M: usize>(content: &Page<'_, N, M>) -> String {
    let title = escaped(content.title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    for fact in content.facts {
        page += &format!("<p>{}</p>\n", escaped(fact));
    }
    if let Some(over_seeds) = &content.over_seeds {
        table(&mut page, over_seeds);
    }
    table(&mut page, &content.table);
    page += "<div class=\"pictures\">\n";
    for (heading, svg) in content.sections {
        let heading = escaped(heading);
        page += &format!(
            "<figure role=\"img\" aria-label=\"{heading}\">\n{}\n</figure>\n",
            svg.trim_end()
        );
    }
    page += "</div>\n";
    if !content.settings.is_empty() {
        page += "<details>\n<summary>Settings that all runs share</summary>\n<dl>\n";
        for (key, value) in content.settings {
            let (key, value) = (escaped(key), escaped(value));
            page += &format!("<dt>{key}</dt><dd>{value}</dd>\n");
        }
        page += "</dl>\n</details>\n";
    }
    page += "</main>\n</body>\n</html>\n";
    page
}

fn table<const N: usize>(page: &mut String, content: &Table<'_, N>) {
    let is_number = |cell: &str| cell == "-" || cell.parse::<f64>().is_ok();
    let class: [&str; N] = std::array::from_fn(|column| {
        let mut cells = content.rows.iter().map(|row| row[column].as_str());
        match cells.all(is_number) {
            true => " class=\"n\"",
            false => "",
        }
    });
    *page += "<div class=\"wide\" tabindex=\"0\">\n<table>\n<thead>\n<tr>";
    for (text, class) in content.header.iter().zip(class) {
        *page += &format!("<th scope=\"col\"{class}>{}</th>", escaped(text));
    }
    *page += "</tr>\n</thead>\n<tbody>\n";
    for (number, row) in content.rows.iter().enumerate() {
        let is_best = content.best == Some(number);
        *page += if is_best {
            "<tr class=\"best\">"
        } else {
            "<tr>"
        };
        for (column, (text, class)) in row.iter().zip(class).enumerate() {
            let (text, label) = (escaped(text), escaped(content.header[column]));
            *page += &match column {
                0 if is_best => format!("<th scope=\"row\"{class}>{text} (best)</th>"),
                0 => format!("<th scope=\"row\"{class}>{text}</th>"),
                _ => format!("<td{class} data-label=\"{label}\">{text}</td>"),
            };
        }
        *page += "</tr>\n";
    }
    *page += "</tbody>\n</table>\n</div>\n";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_escapes_its_texts_marks_the_best_row_and_loads_nothing() {
        let svg = "<svg>curves</svg>\n".to_owned();
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let page = html(&Page {
            title: "Study <1> & \"2\"",
            facts: &["2 runs, <today>".to_owned()],
            over_seeds: Some(Table {
                header: &["<k>", "mean"],
                rows: &[["4", "0.5"].map(str::to_owned)],
                best: None,
            }),
            table: Table {
                header: &["method", "mse & more", "note"],
                rows: &[
                    row(["<b>full</b>", "1.5e-3", "it's"]),
                    row(["lora", "-", "\u{7}"]),
                ],
                best: Some(0),
            },
            sections: &[("Loss & more".to_owned(), svg)],
            settings: &[("train.seed".to_owned(), "\"<0>\"".to_owned())],
        });
        assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
        for part in [
            "<title>Study &lt;1&gt; &amp; &quot;2&quot;</title>",
            "<p>2 runs, &lt;today&gt;</p>",
            "aria-label=\"Loss &amp; more\"",
            "<svg>curves</svg>",
            "<tr class=\"best\"><th scope=\"row\">&lt;b&gt;full&lt;/b&gt; (best)</th>\
             <td class=\"n\" data-label=\"mse &amp; more\">1.5e-3</td><td data-label=\"note\">it&#39;s</td></tr>",
            "<tr><th scope=\"row\">lora</th><td class=\"n\" data-label=\"mse &amp; more\">-</td>",
            "<th scope=\"col\" class=\"n\">mse &amp; more</th>",
            "<th scope=\"col\" class=\"n\">&lt;k&gt;</th>",
            "<tr><th scope=\"row\" class=\"n\">4</th><td class=\"n\" data-label=\"mean\">0.5</td></tr>",
            "<dt>train.seed</dt><dd>&quot;&lt;0&gt;&quot;</dd>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert_eq!(page.matches("class=\"best\"").count(), 1);
        assert!(!page.contains("<b>") && !page.contains("<script") && !page.contains('\u{7}'));
        for load in ["src=", "href=", "url(", "@import"] {
            assert!(!page.contains(load), "{load}");
        }
        for tag in [
            "html", "head", "body", "main", "figure", "table", "thead", "tbody", "tr", "div",
            "details", "dl", "p",
        ] {
            let open = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
