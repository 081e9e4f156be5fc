//! Writes what is made from the Helm charts and committed: golden renders, and the tables in READMEs.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use sealane_tests::charts::golden::Golden;
use sealane_tests::charts::{CHARTS, readme, root};
use std::io::Write;

/// What is made from the Helm charts.
#[derive(Debug, Parser)]
#[command(name = "charts")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make tests/golden and the tables in the charts' READMEs anew; look at the difference before you commit it.
    Update,
}

fn main() -> Result<()> {
    let Command::Update = Cli::parse().command;
    let mut out = std::io::stdout().lock();
    let golden = root().join("tests/golden");
    for chart in CHARTS {
        // A values file that is gone leaves no render behind.
        match std::fs::remove_dir_all(golden.join(chart)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("tests/golden");
            }
            _ => std::fs::create_dir_all(golden.join(chart))?,
        }
        std::fs::write(readme::readme(chart), readme::updated(chart)?)?;
    }
    for golden in Golden::all()? {
        std::fs::write(golden.path(), golden.render()?)?;
        writeln!(out, "{}", golden.path().display())?;
    }
    Ok(())
}
