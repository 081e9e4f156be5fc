//! The binary under test: that of `SEALANE_BIN`, or the one of this build.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

/// Where the binary is; built first when it is missing or older than its sources.
///
/// # Errors
/// When it can not be built.
pub fn path() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| find().map_err(|e| format!("{e:#}"))).clone().map_err(anyhow::Error::msg)
}

fn find() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os("SEALANE_BIN") {
        return Ok(binary.into());
    }
    let profile = profile()?;
    let binary = profile.join("sealane");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let built = std::fs::metadata(&binary).and_then(|m| m.modified()).ok();
    if built.is_none_or(|built| newest(root).is_some_and(|source| source > built)) {
        build(root, &profile)?;
    }
    ensure!(binary.exists(), "there is no {}", binary.display());
    Ok(binary)
}

/// Where Cargo puts programs of the profile that this one is of.
fn profile() -> Result<PathBuf> {
    let own = std::env::current_exe().context("no path of this program itself")?;
    let folder = own.parent().context("this program is in no folder")?;
    // Tests are in a folder below that of the programs.
    let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(profile.to_owned())
}

/// Where Cargo keeps what programs of all profiles are made of.
pub(crate) fn build_folder() -> Result<PathBuf> {
    Ok(profile()?.parent().context("a profile has a folder")?.to_owned())
}

/// A binary of yesterday's sources proves nothing of today's.
fn newest(root: &Path) -> Option<SystemTime> {
    let crates = ["core", "trust", "proto", "federation", "cluster-agent", "proxy", "cli"];
    crates
        .iter()
        .flat_map(|name| [root.join(name).join("src"), root.join(name).join("proto")])
        .filter_map(|d| in_tree(&d))
        .max()
}

fn in_tree(directory: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    let times = entries.filter_map(|entry| {
        let kind = entry.file_type().ok()?;
        if kind.is_dir() { in_tree(&entry.path()) } else { entry.metadata().ok()?.modified().ok() }
    });
    times.max()
}

/// Cargo, as it is called from outside.
///
/// What it tells a test of its package would be told to build scripts too, and some, as that of ring, begin anew where that
/// differs: half of all dependencies would be compiled again, and once more at the next call from outside.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let told = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
    ];
    for (name, _) in std::env::vars_os() {
        if told.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    cargo.stdin(Stdio::null());
    cargo
}

fn build(root: &Path, profile: &Path) -> Result<()> {
    let mut command = cargo();
    command.current_dir(root).args(["build", "--locked", "-p", "sealane", "--bin", "sealane"]);
    if profile.file_name().is_some_and(|name| name == "release") {
        command.arg("--release");
    }
    let status = command.status().context("can not run cargo")?;
    ensure!(status.success(), "`cargo build -p sealane` failed ({status})");
    Ok(())
}
