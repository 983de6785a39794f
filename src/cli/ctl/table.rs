//! Tables for people.
//!
//! Owns their look: no lines, a heading, columns as wide as needed. Does not own what is in them.

use comfy_table::{Table, presets::NOTHING};

/// A table with a heading; `empty` when there is no row.
#[must_use]
pub fn table<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    empty: &str,
) -> String {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return empty.to_owned();
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(heading).add_rows(rows.map(|row| row.map(plain)));
    trim(&table)
}

/// Two columns without a heading: what, and how it stands.
#[must_use]
pub fn facts(facts: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = Table::new();
    let rows = facts.into_iter().map(|(what, value)| [what.to_owned(), plain(value)]);
    table.load_style(NOTHING).add_rows(rows);
    trim(&table)
}

fn trim(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// Text of other people, harmless on a terminal: no control characters.
fn plain(text: String) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_with_escape_codes_can_not_paint_the_terminal() {
        let rows = [["a\u{1b}[31mb\n\u{7}".to_owned()]];
        let text = table(["TITLE"], rows, "none");
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(table(["ID"], [], "no streams"), "no streams");
    }
}
