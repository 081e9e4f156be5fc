//! A program that goes on when its starter ends: in a session of its own, with its output in a file.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a shell does before it becomes the program: it enters control groups, so that none of the program's children
/// is outside. Whoever shares a pipe with a daemon waits for ever, hence the file.
const ENTER: &str =
    r#"for group in $GROUPS_TO_ENTER; do echo 0 >"$group"; done; unset GROUPS_TO_ENTER; exec "$@""#;

/// A running daemon, which is not ended with this value.
#[derive(Debug)]
pub(in super::super) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What a daemon is started with.
#[derive(Debug, Serialize, Deserialize)]
struct Words {
    groups: String,
    command: Vec<String>,
}

impl Daemon {
    /// Starts it; its log, and the words that start it again, are in the cluster's folder.
    pub(in super::super) fn start(
        state: &Path,
        name: &str,
        groups: &[PathBuf],
        command: &[String],
    ) -> Result<Self> {
        let groups: Vec<String> = groups.iter().map(|group| group.display().to_string()).collect();
        let words = Words { groups: groups.join(" "), command: command.to_vec() };
        std::fs::write(file(state, name), serde_json::to_vec(&words)?)
            .with_context(|| format!("can not keep the words of {name}"))?;
        Self::spawn(state, name, &words)
    }

    /// Starts one again that was started before.
    pub(in super::super) fn again(state: &Path, name: &str) -> Result<Self> {
        let words =
            std::fs::read(file(state, name)).with_context(|| format!("no {name} was started here"))?;
        Self::spawn(state, name, &serde_json::from_slice(&words)?)
    }

    fn spawn(state: &Path, name: &str, words: &Words) -> Result<Self> {
        let log = state.join("logs").join(name).with_extension("log");
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file: File = file.with_context(|| format!("can not open {}", log.display()))?;
        let child = Command::new("setsid")
            .args(["sh", "-ec", ENTER, "sh"])
            .args(&words.command)
            .env("GROUPS_TO_ENTER", &words.groups)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("can not share the log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("can not start {name}"))?;
        Ok(Daemon { name: name.to_owned(), child, log })
    }

    pub(in super::super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What is to be said of it if it ended.
    pub(in super::super) fn end(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(15)..].join("\n");
        Some(format!("{} ended ({status}); the end of {}:\n{last}", self.name, self.log.display()))
    }
}

fn file(state: &Path, name: &str) -> PathBuf {
    state.join("daemons").join(name).with_extension("json")
}
