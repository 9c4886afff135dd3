//! Charts and tables as one page that needs nothing else.

use quick_xml::escape::escape;

use super::{Chart, style, svg, text::printable};

/// A page about a measurement.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Page {
    pub(crate) title: String,
    /// Paragraphs before the first chart.
    pub(crate) intro: Vec<String>,
    pub(crate) charts: Vec<Chart>,
    pub(crate) tables: Vec<Table>,
    /// What ran where: names and values.
    pub(crate) machine: Vec<(String, String)>,
    /// What one has to type to get the same.
    pub(crate) commands: Vec<String>,
}

/// The figures behind the charts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table {
    pub(crate) caption: String,
    pub(crate) heads: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

const LOOK: &str = "
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1a1a1a; --soft: #555555; \
--line: #dddddd; --band: #f5f5f5 }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e8e8e8; \
--soft: #b0b0b0; --line: #3a3d44; --band: #1f2228 } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 60rem; background: var(--paper); \
color: var(--ink); font-size: 1rem; line-height: 1.5 }
h1 { font-size: 1.6rem; line-height: 1.25 } h2 { font-size: 1.2rem; margin-top: 2.5rem }
figure { margin: 2rem 0; break-inside: avoid } figure svg { max-width: 100%; height: auto }
.table { overflow-x: auto; break-inside: avoid; margin: 1.5rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem }
caption { text-align: left; font-weight: bold; padding: 0.3rem 0 }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid var(--line); text-align: left; \
vertical-align: top }
thead th { border-bottom: 2px solid var(--soft) } .n { text-align: right }
tbody tr:nth-child(even) { background: var(--band) }
tbody th { font-weight: normal; color: var(--soft); white-space: nowrap }
pre { background: var(--band); padding: 0.75rem 1rem; overflow-x: auto; font-size: 0.9rem; \
white-space: pre-wrap; overflow-wrap: anywhere }
@media print { body { margin: 0; max-width: none; font-size: 10pt } }
";

/// Writes the page. It asks for nothing from elsewhere and runs nothing.
pub(crate) fn html(page: &Page) -> String {
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>body {{ font-family: {fonts} }}{LOOK}</style>\n</head>\n\
         <body>\n<h1>{title}</h1>\n",
        title = clean(&page.title),
        fonts = style::FONTS,
    );
    for paragraph in &page.intro {
        text += &format!("<p>{}</p>\n", clean(paragraph));
    }
    for chart in &page.charts {
        text += &format!("<figure>\n{}</figure>\n", svg(chart));
    }
    if !page.tables.is_empty() {
        text += "<h2>Figures</h2>\n";
    }
    for shown in &page.tables {
        text += &table(shown);
    }
    if !page.machine.is_empty() {
        text += "<h2>What ran where</h2>\n<div class=\"table\"><table><tbody>\n";
        for (name, value) in &page.machine {
            let (name, value) = (clean(name), clean(value));
            text += &format!("<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>\n");
        }
        text += "</tbody></table></div>\n";
    }
    if !page.commands.is_empty() {
        let commands: Vec<_> = page.commands.iter().map(|c| clean(c)).collect();
        text += &format!(
            "<h2>How to repeat it</h2>\n<pre>{}</pre>\n",
            commands.join("\n")
        );
    }
    text + "</body>\n</html>\n"
}

fn table(table: &Table) -> String {
    let columns = table.rows.iter().map(Vec::len).max().unwrap_or(0);
    let classes: Vec<_> = (0..columns.max(table.heads.len()))
        .map(|column| {
            let mut cells = table.rows.iter().filter_map(|row| row.get(column));
            if cells.all(|cell| is_figure(cell)) {
                " class=\"n\""
            } else {
                ""
            }
        })
        .collect();
    let mut text = format!(
        "<div class=\"table\"><table>\n<caption>{}</caption>\n<thead><tr>",
        clean(&table.caption)
    );
    for (head, class) in table.heads.iter().zip(&classes) {
        text += &format!("<th scope=\"col\"{class}>{}</th>", clean(head));
    }
    text += "</tr></thead>\n<tbody>\n";
    for row in &table.rows {
        text += "<tr>";
        for (cell, class) in row.iter().zip(&classes) {
            text += &format!("<td{class}>{}</td>", clean(cell));
        }
        text += "</tr>\n";
    }
    text + "</tbody></table></div>\n"
}

/// Whether a cell stands better at the right.
fn is_figure(cell: &str) -> bool {
    cell.is_empty()
        || cell.starts_with(|c: char| c.is_ascii_digit() || "-+\u{2212}\u{b1}\u{2013}".contains(c))
}

fn clean(text: &str) -> String {
    escape(printable(text)).into_owned()
}
