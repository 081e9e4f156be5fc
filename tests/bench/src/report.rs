//! How a result is told: ratios first, then tables, then the machine.

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::Table as Grid;
use comfy_table::presets::ASCII_MARKDOWN;
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Markdown, as in docs/benchmarks.md.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// What one benchmark found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What was measured.
    pub(crate) title: String,
    /// What to know at first sight, a sentence each: ratios to the peer of the same run.
    pub(crate) ratios: Vec<String>,
    /// The figures behind them.
    pub(crate) tables: Vec<Table>,
    /// What was run and what was not.
    pub(crate) notes: Vec<String>,
    /// The machine.
    pub(crate) host: String,
}

/// Figures.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    /// What they are of.
    pub(crate) caption: String,
    /// The names of the columns, with their units.
    pub(crate) columns: Vec<String>,
    /// The rows.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows yet.
    pub(crate) fn new(caption: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&c| c.to_owned()).collect();
        Table { caption: caption.to_owned(), columns, rows: Vec::new() }
    }
}

impl Report {
    /// On this machine.
    pub(crate) fn new(title: &str) -> Self {
        let host = crate::host::describe();
        Report { title: title.to_owned(), ratios: Vec::new(), tables: Vec::new(), notes: Vec::new(), host }
    }

    /// Prints it to standard output.
    ///
    /// # Errors
    /// When it can not be written as JSON.
    pub(crate) fn print(&self, format: Format) -> Result<()> {
        if format == Format::Json {
            println!("{}", serde_json::to_string_pretty(self)?);
            return Ok(());
        }
        println!("## {}\n", self.title);
        self.ratios.iter().for_each(|line| println!("- **{line}**"));
        for table in &self.tables {
            let mut grid = Grid::new();
            grid.load_preset(ASCII_MARKDOWN).set_header(&table.columns);
            table.rows.iter().for_each(|row| {
                grid.add_row(row);
            });
            println!("\n{}\n\n{grid}", table.caption);
        }
        println!();
        self.notes.iter().for_each(|line| println!("- {line}"));
        println!("- Machine: {}.", self.host);
        Ok(())
    }
}
