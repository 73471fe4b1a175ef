//! Tables as kubectl prints them: columns three spaces apart, heads in capitals, what is not known as `<none>`; and which
//! rows changed since they were printed last.

use std::collections::{BTreeMap, BTreeSet};

/// Spaces between columns.
const GAP: usize = 3;

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its head.
    pub head: &'static str,
    /// Shown by `-o wide` only.
    pub wide: bool,
    /// It changes as time passes, which alone is no reason to print a row again.
    pub moving: bool,
}

/// A column that is always shown.
pub const fn column(head: &'static str) -> Column {
    Column { head, wide: false, moving: false }
}

/// A column of `-o wide`.
pub const fn wide(head: &'static str) -> Column {
    Column { head, wide: true, moving: false }
}

/// A column with a duration from or until now.
pub const fn moving(head: &'static str) -> Column {
    Column { head, wide: false, moving: true }
}

/// One row: a cell for each column; an empty one is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Tells it from the others, and knows it again.
    pub key: String,
    /// The cells.
    pub cells: Vec<String>,
}

/// Prints rows of some columns. Widths only grow, so that rows that are printed later stand below earlier ones.
#[derive(Debug)]
pub struct Printer {
    columns: &'static [Column],
    wide: bool,
    widths: Vec<usize>,
    headed: bool,
    /// What was printed last of each row, without what moves.
    seen: BTreeMap<String, Row>,
}

impl Printer {
    /// A printer that has printed nothing yet.
    pub fn new(columns: &'static [Column], wide: bool) -> Self {
        let widths = columns.iter().map(|c| c.head.len()).collect();
        Self { columns, wide, widths, headed: false, seen: BTreeMap::new() }
    }

    /// The rows as text, the heads before the first.
    pub fn print(&mut self, rows: &[Row]) -> String {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(shown(cell).chars().count());
            }
        }
        let mut out = String::new();
        if !std::mem::replace(&mut self.headed, true) {
            self.line(&mut out, self.columns.iter().map(|c| c.head));
        }
        for row in rows {
            self.line(&mut out, row.cells.iter().map(|cell| shown(cell)));
        }
        out
    }

    fn line<'a>(&self, out: &mut String, cells: impl Iterator<Item = &'a str>) {
        let mut pad = 0;
        for ((column, width), cell) in self.columns.iter().zip(&self.widths).zip(cells) {
            if column.wide && !self.wide {
                continue;
            }
            out.extend(std::iter::repeat_n(' ', pad));
            out.push_str(cell);
            pad = width.saturating_sub(cell.chars().count()) + GAP;
        }
        out.push('\n');
    }

    /// Of all the rows that there are now, those that are new or have changed; and as they were last, with `gone` in the
    /// column of this head, those that are no more.
    pub fn changed(&mut self, all: &[Row], gone: &str) -> Vec<Row> {
        let still = |row: &Row| Row {
            key: row.key.clone(),
            cells: row
                .cells
                .iter()
                .zip(self.columns)
                .filter(|(_, c)| !c.moving)
                .map(|(cell, _)| cell.clone())
                .collect(),
        };
        let state = self.columns.iter().position(|c| c.head == gone);
        let keys: BTreeSet<&str> = all.iter().map(|row| row.key.as_str()).collect();
        let mut out: Vec<Row> = all
            .iter()
            .filter(|row| self.seen.get(&row.key).is_none_or(|last| still(last) != still(row)))
            .cloned()
            .collect();
        for (key, last) in &self.seen {
            if !keys.contains(key.as_str()) {
                let mut last = last.clone();
                if let Some(cell) = state.and_then(|at| last.cells.get_mut(at)) {
                    "gone".clone_into(cell);
                }
                out.push(last);
            }
        }
        self.seen = all.iter().map(|row| (row.key.clone(), row.clone())).collect();
        out
    }
}

fn shown(cell: &str) -> &str {
    if cell.is_empty() { "<none>" } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[column("NAME"), column("STATE"), wide("POD"), moving("AGE")];

    fn row(cells: [&str; 4]) -> Row {
        Row { key: cells[0].to_owned(), cells: cells.map(str::to_owned).to_vec() }
    }

    #[test]
    fn columns_stand_three_apart_and_wide_ones_only_if_asked_for() {
        let rows = [row(["8005", "up", "router-1", "3s"]), row(["größer", "", "r", "10m"])];
        let text = Printer::new(COLUMNS, false).print(&rows);
        assert_eq!(text, "NAME     STATE    AGE\n8005     up       3s\ngrößer   <none>   10m\n");
        let mut printer = Printer::new(COLUMNS, true);
        printer.print(&rows[..1]);
        // Heads stand once, and what comes later stands below.
        assert_eq!(printer.print(&[row(["9", "up", "x", "1s"])]), "9      up      x          1s\n");
    }

    #[test]
    fn a_row_is_printed_again_when_it_changed_and_when_it_is_gone() {
        let mut printer = Printer::new(COLUMNS, false);
        let first = [row(["a", "ringing", "r", "1s"]), row(["b", "up", "r", "9s"])];
        assert_eq!(printer.changed(&first, "STATE"), first);
        assert!(printer.changed(&[row(["a", "ringing", "r", "2s"]), row(["b", "up", "r", "10s"])], "STATE").is_empty());
        let changed = printer.changed(&[row(["a", "up", "r", "3s"])], "STATE");
        assert_eq!(changed, [row(["a", "up", "r", "3s"]), row(["b", "gone", "r", "10s"])]);
        assert_eq!(printer.changed(&[], "STATE"), [row(["a", "gone", "r", "3s"])]);
        assert!(printer.changed(&[], "STATE").is_empty());
    }
}
