//! Commands of the machine: run to their end, with what they said when they fail, and killed with whoever waits.

use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::fmt::Write;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;

/// How long a command may take that only asks or sets something.
pub(super) const QUICK: Duration = Duration::from_secs(60);

/// Words of a command.
pub(super) fn words<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it, and gives what it printed.
pub(super) async fn run(command: &mut Command, limit: Duration) -> Result<String> {
    let said = shown(command);
    let output = output(command, limit).await?;
    let text = String::from_utf8_lossy(&output.stderr);
    let text = if text.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { text };
    ensure!(output.status.success(), "`{said}` failed ({}): {}", output.status, text.trim());
    String::from_utf8(output.stdout).with_context(|| format!("`{said}` did not print text"))
}

/// Runs it, and gives its status and all that it printed.
pub(super) async fn output(command: &mut Command, limit: Duration) -> Result<Output> {
    let said = shown(command);
    command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("can not run `{said}`"))?;
    tokio::time::timeout(limit, child.wait_with_output())
        .await
        .with_context(|| format!("`{said}` did not end within {limit:?}"))?
        .with_context(|| format!("`{said}` was not waited for"))
}

fn shown(command: &Command) -> String {
    let command = command.as_std();
    let mut text = command.get_program().to_string_lossy().into_owned();
    for word in command.get_args() {
        let _ = write!(text, " {}", word.to_string_lossy());
    }
    // A script is known by its first words.
    text.chars().take(200).collect()
}
