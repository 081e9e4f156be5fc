//! What every part of a local topology shares: addresses, a directory, and the binary.

use super::block::Block;
use super::directory::RunDirectory;
use super::guard::Guard;
use super::process::Launcher;
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run's own piece of the machine. Clones share it; with the last of them its directory is removed.
#[derive(Debug, Clone)]
pub struct Lab(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    // Dropped in this order: the addresses are free only when the directory is gone.
    launcher: Launcher,
    directory: RunDirectory,
    _guard: Guard,
    block: Block,
}

impl Lab {
    /// A lab whose directory is made in `parent` and whose processes are of `binary`.
    ///
    /// # Errors
    /// When the directory or the addresses can not be had.
    pub fn new(binary: PathBuf, parent: &Path, filter: &str) -> Result<Self> {
        let block = Block::reserve()?;
        let directory = RunDirectory::create(parent)?;
        let logs = directory.path().join("logs");
        std::fs::create_dir(&logs).context("can not make the log directory")?;
        let guard = Guard::start(&binary, directory.path())?;
        let launcher = Launcher::new(binary, logs, filter);
        Ok(Lab(Arc::new(Shared { launcher, directory, _guard: guard, block })))
    }

    /// Starts processes and runs commands.
    #[must_use]
    pub fn launcher(&self) -> &Launcher {
        &self.0.launcher
    }

    /// The run's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.directory.path()
    }

    /// The addresses, for people.
    #[must_use]
    pub fn block(&self) -> &Block {
        &self.0.block
    }

    /// An address of the run.
    #[must_use]
    pub fn address(&self, network: u8, host: u8) -> Ipv4Addr {
        self.0.block.address(network, host)
    }

    /// A socket address of the run.
    #[must_use]
    pub fn socket(&self, network: u8, host: u8, port: u16) -> SocketAddr {
        self.0.block.socket(network, host, port)
    }

    /// Makes a directory of the run, and gives its path.
    ///
    /// # Errors
    /// When it can not be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("can not make {}", path.display()))?;
        Ok(path)
    }
}
