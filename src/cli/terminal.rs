//! What a terminal has room for.
//!
//! Owns the width of the terminal and the cut of a line to it: a line that wraps can not be drawn
//! over. Does not own what the lines say.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands for the rest of a line that was cut.
const CUT: char = '\u{2026}';

/// Columns that a line on stderr may fill; `None` when it is no terminal or does not say.
pub fn stderr_columns() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stderr()).map(|(width, _)| usable(width.0))
}

/// As [`stderr_columns`], of stdout.
pub fn stdout_columns() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usable(width.0))
}

/// The last column stays free: some terminals wrap as soon as it is filled.
fn usable(width: u16) -> usize {
    usize::from(width).saturating_sub(1)
}

/// `line`, cut so that it fills at most `columns`; whole without a limit.
pub fn fit(line: &str, columns: Option<usize>) -> Cow<'_, str> {
    let Some(columns) = columns.filter(|columns| line.width() > *columns) else {
        return line.into();
    };
    let Some(room) = columns.checked_sub(1) else { return "".into() };
    let mut filled = 0;
    let mut cut: String = line
        .chars()
        .take_while(|c| {
            filled += c.width().unwrap_or(0);
            filled <= room
        })
        .collect();
    cut.push(CUT);
    cut.into()
}

/// `text` in exactly `columns`: cut, or filled up with spaces behind it.
pub fn cell(text: &str, columns: usize) -> String {
    let mut cell = fit(text, Some(columns)).into_owned();
    let missing = columns.saturating_sub(cell.width());
    cell.extend(std::iter::repeat_n(' ', missing));
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_never_fills_more_than_the_terminal() {
        assert_eq!(fit("short", Some(79)), "short");
        assert_eq!(fit("exactly", Some(7)), "exactly");
        assert_eq!(fit("too long", Some(5)), "too \u{2026}");
        assert_eq!(fit("anything", None), "anything");
        assert_eq!(fit("anything", Some(0)), "");
    }

    #[test]
    fn wide_characters_count_twice_and_marks_not_at_all() {
        let wide = "\u{6f22}".repeat(40);
        for columns in 1..=79 {
            assert!(fit(&wide, Some(columns)).width() <= columns, "{columns}");
        }
        assert_eq!(fit("e\u{301}a", Some(2)), "e\u{301}a");
        assert_eq!(cell("\u{6f22}\u{5b57}", 6).width(), 6);
        assert_eq!(cell("\u{6f22}\u{5b57}", 3), "\u{6f22}\u{2026}");
    }
}
