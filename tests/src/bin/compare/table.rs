//! The results as Markdown: a column for each tunnel, and what each row means.

use crate::rows::Row;

/// Rows are there from the start, columns come with their tunnels.
pub(crate) struct Table<'a> {
    rows: &'a [&'a Row],
    columns: Vec<(&'static str, Vec<String>)>,
}

impl<'a> Table<'a> {
    pub(crate) fn of(rows: &'a [&'a Row]) -> Self {
        let columns = Vec::new();
        Self { rows, columns }
    }

    /// The results are in the order of the rows.
    pub(crate) fn add(&mut self, tunnel: &'static str, results: Vec<String>) {
        self.columns.push((tunnel, results));
    }

    pub(crate) fn to_markdown(&self) -> String {
        let names = self.columns.iter().map(|(name, _)| *name);
        let mut lines = vec![
            line("", names),
            line("---", self.columns.iter().map(|_| "---")),
        ];
        for (number, row) in self.rows.iter().enumerate() {
            let cells = self.columns.iter().map(|(_, results)| &*results[number]);
            lines.push(line(row.name, cells));
        }
        lines.push(String::new());
        let meanings = self.rows.iter();
        lines.extend(meanings.map(|row| format!("- **{}**: {}", row.name, row.meaning)));
        lines.join("\n") + "\n"
    }
}

fn line<'a>(first: &str, cells: impl Iterator<Item = &'a str>) -> String {
    let cells: Vec<_> = cells.map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {first} | {} |", cells.join(" | "))
}
