//! Medians, ratios, tables and bars.

use std::fmt;

/// The middle value; of an even number the mean of the two in the middle; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 0 => (sorted[half - 1] + sorted[half]) / 2.0,
        _ => sorted[half],
    }
}

/// The median of `subject / other`, round by round: what disturbs the machine for longer than a round
/// disturbs both, and cancels out.
pub fn paired_ratio(subject: &[f64], other: &[f64]) -> f64 {
    let ratios: Vec<f64> = subject.iter().zip(other).map(|(subject, other)| subject / other).collect();
    median(&ratios)
}

/// Bytes as decimal megabytes, for a table.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// What a figure must reach.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Limit {
    fn is_met(self, value: f64) -> bool {
        match self {
            Limit::AtMost(limit) => value <= limit,
            Limit::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::AtMost(limit) => write!(f, "≤ {limit}"),
            Limit::AtLeast(limit) => write!(f, "≥ {limit}"),
        }
    }
}

/// One bar of the project, and what was measured.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What was measured.
    pub figure: String,
    /// Its value, in `unit`.
    pub value: f64,
    /// The bar, in `unit`.
    pub limit: Limit,
    /// `×` for ratios.
    pub unit: &'static str,
}

/// All verdicts as a table.
pub fn verdict_table(verdicts: &[Verdict]) -> Table {
    let mut table = Table::new(&["figure", "measured", "bar", ""]);
    for Verdict { figure, value, limit, unit } in verdicts {
        let met = if limit.is_met(*value) { "met" } else { "MISSED" };
        table.row([figure.clone(), format!("{value:.2} {unit}"), format!("{limit} {unit}"), met.to_owned()]);
    }
    table
}

/// A Markdown table with aligned columns: readable in a terminal, and ready for ARCHITECTURE.md.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table under these headings.
    pub fn new(headings: &[&str]) -> Table {
        Table { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    /// Adds a row with as many cells as there are headings.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.rows[0].len(), "a row has a cell for each heading");
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Names to the left, figures to the right.
                match column {
                    0 => write!(f, "| {cell:<width$} ")?,
                    _ => write!(f, "| {cell:>width$} ")?,
                }
            }
            writeln!(f, "|")?;
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let end = if column == 0 { '-' } else { ':' };
                    write!(f, "|{:-<1$}{end}", "", width + 1)?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        for (values, expected) in
            [(&[][..], 0.0), (&[3.0], 3.0), (&[9.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 100.0, 2.0], 3.0)]
        {
            assert_eq!(median(values), expected, "{values:?}");
        }
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The machine was half as fast in the second round: the ratio does not notice.
        assert_eq!(paired_ratio(&[50.0, 25.0, 50.0], &[100.0, 50.0, 100.0]), 0.5);
        // The median of ratios is not the ratio of medians.
        assert_eq!(paired_ratio(&[1.0, 2.0, 9.0], &[1.0, 4.0, 3.0]), 1.0);
    }

    #[test]
    fn a_bar_is_met_on_its_edge() {
        assert!(Limit::AtMost(1.2).is_met(1.2) && Limit::AtLeast(0.85).is_met(0.85));
        assert!(!Limit::AtMost(1.2).is_met(1.21) && !Limit::AtLeast(0.85).is_met(0.84));
        assert!(!Limit::AtMost(1.0).is_met(f64::NAN) && !Limit::AtLeast(1.0).is_met(f64::NAN));
    }

    #[test]
    fn a_table_is_aligned_markdown() {
        let mut table = Table::new(&["server", "µs"]);
        table.row(["flowbay".to_owned(), "12.5".to_owned()]);
        assert_eq!(table.to_string(), "| server  |   µs |\n|---------|-----:|\n| flowbay | 12.5 |\n");
    }
}
