//! Answers of the admin API as text for people.

use std::fmt::Write as _;

/// Rows as lines with their cells below each other. Whatever could disturb a terminal is escaped.
pub fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| harmless(cell))).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut table = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(table, "{}", cells.join("  ").trim_end());
    }
    table
}

/// A text of others for a terminal.
pub fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            harmless.extend(c.escape_debug());
        } else {
            harmless.push(c);
        }
    }
    harmless
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_each_other_and_cannot_move_the_cursor() {
        let rows =
            [["NODE", "NAME"], ["a", "ünï"], ["long one", "\x1b[2J\n"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), "NODE      NAME\na         ünï\nlong one  \\u{1b}[2J\\n\n");
    }
}
