//! A program that is not ours, started and started again; it dies with who started it.

use anyhow::Result;
use sealane::local::{Launcher, Process};
use std::path::{Path, PathBuf};

/// One program with its arguments, running or not.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    launcher: Launcher,
    words: Vec<String>,
    running: Option<Process>,
}

impl Program {
    pub(super) fn new(logs: &Path, name: String, binary: PathBuf, words: Vec<String>) -> Self {
        // Others' programs do not know our environment variable: setpriv (of util-linux) binds them to this process.
        let launcher = Launcher::new("setpriv".into(), logs.to_owned(), "off");
        let bound = ["--pdeathsig".to_owned(), "KILL".to_owned(), "--".to_owned()].into_iter();
        let words = bound.chain([binary.display().to_string()]).chain(words).collect();
        Program { name, launcher, words, running: None }
    }

    pub(super) fn start(&mut self) -> Result<()> {
        self.running = Some(self.launcher.start(&self.name, &self.words)?);
        Ok(())
    }

    pub(super) fn process(&self) -> Option<&Process> {
        self.running.as_ref()
    }

    pub(super) fn kill(&mut self) {
        self.running = None;
    }

    /// What is to be said of it if it ended by itself.
    pub(super) fn end(&mut self) -> Option<String> {
        let status = self.running.as_mut()?.ended()?;
        Some(format!("{} ended ({status}):\n{}", self.name, self.tail()))
    }

    /// The last that it said.
    pub(super) fn tail(&self) -> String {
        let said = self.running.as_ref().map(Process::said).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        format!("{}:\n{}", self.name, lines[lines.len().saturating_sub(10)..].join("\n"))
    }
}
