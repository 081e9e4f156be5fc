//! What is printed: a table for people, JSON for scripts.

use anyhow::{Context, Result};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, Write};
use std::time::Duration;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// The JSON of the status API.
    Json,
}

/// Prints a value: as JSON, or as the text that `table` makes of it.
///
/// # Errors
/// When standard output is closed, or the value can not be written as JSON.
pub fn print<T: Serialize>(format: Format, value: &T, table: impl FnOnce(&T) -> String) -> Result<()> {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(value).context("can not write JSON")?,
        Format::Table => table(value),
    };
    line(&text)
}

/// Prints one text and a line end.
///
/// # Errors
/// When standard output is closed.
pub fn line(text: &str) -> Result<()> {
    match writeln!(io::stdout().lock(), "{}", text.trim_end()) {
        // Whoever reads it has seen enough (`sealane ... | head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("can not write to standard output"),
    }
}

/// A table without lines, as `kubectl` prints them.
#[must_use]
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.map(str::to_uppercase));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A duration as people say it: `12s`, `4m`, `3h`, `6d`.
#[must_use]
pub fn ago(duration: Duration) -> String {
    match duration.as_secs() {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// `-` for nothing.
#[must_use]
pub fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_columns() {
        let text =
            table(["name", "state"], [["east".into(), "live".into()], ["northwest".into(), "-".into()]]);
        assert_eq!(text, "NAME       STATE\neast       live\nnorthwest  -");
    }

    #[test]
    fn durations_are_said_in_one_unit() {
        let said: Vec<String> =
            [5, 119, 120, 7199, 7200, 200_000].map(|s| ago(Duration::from_secs(s))).into();
        assert_eq!(said, ["5s", "119s", "2m", "119m", "2h", "2d"]);
    }
}
