//! A page of pictures and a table.

/// How the page looks: readable from a telephone to print, and light also where the reader's system is dark, for the
/// pictures are.
const STYLE: &str = "\
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:52rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;line-height:1.25}
h2{font-size:1.15rem;margin-top:2rem}
figure{margin:0}
svg{max-width:100%;height:auto}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem;border-bottom:1px solid #ccc;text-align:left;vertical-align:top}
thead th{border-bottom:2px solid #666}
.n{text-align:right}
@media print{body{margin:0;max-width:none}figure,tr{break-inside:avoid}}
";

/// Returns one HTML page without scripts that loads nothing.
///
/// # Arguments
///
/// - `title`: the heading of the page.
/// - `sections`: a heading and a picture each. The picture goes into the page as it is and must come from
///   [`curves`](super::curves); all other text is escaped.
/// - `header`, `rows`: the table, above the pictures; none if both are empty. The first cell of a row is its
///   heading. A column in which every cell is a number or empty is aligned to the right. Short rows are filled up
///   with empty cells.
pub(crate) fn html(
    title: &str,
    sections: &[(String, String)],
    header: &[String],
    rows: &[Vec<String>],
) -> String {
    let title = escaped(title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    table(&mut page, header, rows);
    for (heading, svg) in sections {
        let heading = escaped(heading);
        page += &format!(
            "<section>\n<h2>{heading}</h2>\n<figure role=\"img\" aria-label=\"{heading}\">\n{}\n</figure>\n\
             </section>\n",
            svg.trim_end()
        );
    }
    page += "</main>\n</body>\n</html>\n";
    page
}

fn table(page: &mut String, header: &[String], rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).fold(header.len(), usize::max);
    if columns == 0 {
        return;
    }
    let cell =
        |row: &'_ [String], column: usize| row.get(column).map_or("", String::as_str).to_owned();
    let class: Vec<&str> = (0..columns)
        .map(|column| {
            let mut cells = rows
                .iter()
                .map(|row| cell(row, column))
                .filter(|cell| !cell.is_empty());
            let some = cells.clone().next().is_some();
            match some && cells.all(|cell| cell.trim().parse::<f64>().is_ok()) {
                true => " class=\"n\"",
                false => "",
            }
        })
        .collect();
    *page += "<div class=\"wide\" tabindex=\"0\">\n<table>\n";
    if !header.is_empty() {
        *page += "<thead>\n<tr>";
        for (column, class) in class.iter().enumerate() {
            let text = escaped(&cell(header, column));
            *page += &format!("<th scope=\"col\"{class}>{text}</th>");
        }
        *page += "</tr>\n</thead>\n";
    }
    *page += "<tbody>\n";
    for row in rows {
        *page += "<tr>";
        for (column, class) in class.iter().enumerate() {
            let text = escaped(&cell(row, column));
            *page += &match column {
                0 => format!("<th scope=\"row\"{class}>{text}</th>"),
                _ => format!("<td{class}>{text}</td>"),
            };
        }
        *page += "</tr>\n";
    }
    *page += "</tbody>\n</table>\n</div>\n";
}

/// Escapes a text for an element or a quoted attribute. Control characters, which HTML does not allow, become spaces.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character if character.is_control() => escaped.push(' '),
            character => escaped.push(character),
        }
    }
    escaped
}
