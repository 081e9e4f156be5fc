//! The version before this one, for tests of upgrades: the commit that `tests/former-commit` states, built from the history
//! of this checkout, once, into the cache of the tools.
//!
//! Law: nothing is fetched from anywhere but crates, and this build's own artifacts stay what they are. Where the history is
//! not there (a shallow clone, a tarball), this build stands in for the former one, and that is said.

use crate::{binary, charts, tools};
use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A version to upgrade from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// What it is called: charts and image bear it.
    pub version: String,
    /// Its `sealane`.
    pub binary: PathBuf,
    /// The directory of its charts.
    pub charts: PathBuf,
}

/// What stands in for it is called so.
const SAME: &str = "0.0.0-same";

impl Former {
    /// Whether it is another version than this one.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.version != SAME
    }
}

/// The former version; built first where it is not there.
///
/// # Errors
/// When it can not be built, or the cache's place is not known.
pub fn find() -> Result<Former> {
    let commit = commit()?;
    let short = commit.get(..12).context("a hash is longer")?;
    let folder = tools::cache()?.join(format!("former-{short}"));
    let former = Former {
        version: format!("0.0.0-g{short}"),
        binary: folder.join("sealane"),
        charts: folder.join("charts"),
    };
    if !former.binary.exists() {
        if let Err(why) = is_known(&commit) {
            say(&format!(
                "the former version, {short}, is not in the history of this checkout ({why:#}): THIS BUILD IS TAKEN FOR IT"
            ));
            return Ok(stand_in(binary::path()?));
        }
        make(&commit, &folder).with_context(|| format!("can not build the former version, {short}"))?;
    }
    say(&format!("the former version is {short}"));
    Ok(former)
}

/// This build under another name: pods are still replaced one by one, but by what they are.
fn stand_in(binary: PathBuf) -> Former {
    Former { version: SAME.to_owned(), binary, charts: charts::root().join("charts") }
}

/// What is stated: the line that is no comment.
fn commit() -> Result<String> {
    let path = charts::root().join("tests/former-commit");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let stated = text.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
    let whole = stated.len() == 40 && stated.bytes().all(|b| b.is_ascii_hexdigit());
    ensure!(whole, "{}: {stated:?} is no whole hash of a commit", path.display());
    Ok(stated.to_owned())
}

/// Whether the history of this checkout holds a commit; the error says why not, in Git's words.
fn is_known(commit: &str) -> Result<()> {
    let asked = git().args(["cat-file", "-e", &format!("{commit}^{{commit}}")]).output();
    let asked = asked.context("can not run git")?;
    ensure!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr).trim());
    Ok(())
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(charts::root()).stdin(Stdio::null());
    git
}

/// Builds it: the program is put in its place last, so that what is there is whole.
fn make(commit: &str, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("can not make {}", folder.display()))?;
    let lock = File::create(folder.join("lock")).context("can not make the lock")?;
    flock(&lock, FlockOperation::LockExclusive).context("can not lock the folder")?;
    let built = folder.join("sealane");
    if built.exists() {
        return Ok(());
    }
    let begun = Instant::now();
    say(&format!("building the former version, {commit} (once)"));
    let [source, target, charts] = ["source", "target", "charts"].map(|name| folder.join(name));
    for unfinished in [&source, &target, &charts] {
        remove(unfinished)?;
    }
    unpack(commit, &source)?;
    cargo(&source, &target)?;
    let move_to = |from: PathBuf, to: &Path| {
        std::fs::rename(&from, to).with_context(|| format!("can not move {}", from.display()))
    };
    move_to(source.join("charts"), &charts)?;
    move_to(target.join("debug/sealane"), &built)?;
    remove(&source)?;
    remove(&target)?;
    say(&format!("building the former version: done, {} s", begun.elapsed().as_secs()));
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can not remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Its sources, out of the history.
fn unpack(commit: &str, source: &Path) -> Result<()> {
    std::fs::create_dir_all(source).with_context(|| format!("can not make {}", source.display()))?;
    let mut archive =
        git().args(["archive", commit]).stdout(Stdio::piped()).spawn().context("can not run git")?;
    let bytes = archive.stdout.take().context("git has no output")?;
    // With the time of now: Cargo takes a file that is older than an artifact for one that is in it.
    let unpacked = Command::new("tar").args(["-x", "-m", "-C"]).arg(source).stdin(bytes).status();
    let archived = archive.wait().context("git was not waited for")?;
    let unpacked = unpacked.context("can not run tar")?;
    ensure!(archived.success() && unpacked.success(), "git archive: {archived}, tar: {unpacked}");
    Ok(())
}

/// Builds `sealane` with the artifacts of this build's dependencies, which takes a minute or two instead of many.
///
/// Cargo knows a package of a workspace by its path in the workspace: former and present crates would be the same to it,
/// and take each other's place. What keeps them apart is a setting that only crates of the workspace have, of which
/// nothing else depends, and that nobody chooses. The features are those of a build of the whole workspace.
fn cargo(source: &Path, target: &Path) -> Result<()> {
    let mut cargo = binary::cargo();
    cargo.current_dir(source);
    cargo.args(["build", "--locked", "-p", "sealane", "--bin", "sealane", "--features", "tokio/test-util"]);
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "line-directives-only").env("CARGO_INCREMENTAL", "0");
    // Programs go to one place, and all that they are made of to another.
    cargo.env("CARGO_TARGET_DIR", target).env("CARGO_BUILD_BUILD_DIR", binary::build_folder()?);
    let status = cargo.status().context("can not run cargo")?;
    ensure!(status.success(), "`cargo build` failed ({status})");
    Ok(())
}

/// Said also where a test's output is kept back: whoever waits wants to know for what.
fn say(what: &str) {
    let _nobody_reads = writeln!(std::io::stderr(), "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_is_not_there_is_told_from_one_that_is() {
        assert_eq!(commit().unwrap().len(), 40);
        assert!(is_known(&"0".repeat(40)).is_err());
    }
}
