//! A server's directory: who it is (`server.json`), its keys (`pki/`), its storage (`store/`).

use crate::peers::Known;
use anyhow::{Context, bail};
use sealane_core::identity::{FederationId, ServerId};
use sealane_core::name::TrustDomain;
use sealane_trust::file::{self, Access};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

const FILE: &str = "server.json";
const MAX_FILE: u64 = 64 * 1024;

/// Who a server is, as `init` or `join` wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The federation.
    pub federation: FederationId,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// This server.
    pub server: ServerId,
    /// Where it is dialled.
    pub address: String,
    /// Where its status API is reached.
    pub status_address: String,
    /// Where other servers were when this one joined.
    pub peers: Known,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    federation: String,
    trust_domain: String,
    server: u64,
    address: String,
    status_address: String,
    #[serde(default)]
    peers: Vec<Peer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    id: u64,
    address: String,
}

/// A directory with its identity.
#[derive(Debug, Clone)]
pub struct Directory {
    /// Where.
    pub path: PathBuf,
    /// Whose.
    pub identity: Identity,
}

impl Directory {
    /// Reads what `init` or `join` wrote.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let file = path.join(FILE);
        let bytes = file::read(&file, MAX_FILE)
            .with_context(|| format!("{} holds no server: make one with `init` or `join`", path.display()))?;
        let text: Text =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display()))?;
        let identity = Identity {
            federation: text.federation.parse()?,
            trust_domain: text.trust_domain.parse()?,
            server: ServerId(text.server),
            address: text.address,
            status_address: text.status_address,
            peers: text.peers.into_iter().map(|p| (ServerId(p.id), p.address)).collect(),
        };
        Ok(Directory { path: path.to_owned(), identity })
    }

    /// Writes who the server is; the last step of `init` and `join`.
    ///
    /// # Errors
    /// When the file can not be written.
    pub fn store(&self) -> anyhow::Result<()> {
        let me = &self.identity;
        let text = Text {
            federation: me.federation.to_string(),
            trust_domain: me.trust_domain.to_string(),
            server: me.server.0,
            address: me.address.clone(),
            status_address: me.status_address.clone(),
            peers: me.peers.iter().map(|(id, address)| Peer { id: id.0, address: address.clone() }).collect(),
        };
        let bytes = serde_json::to_vec_pretty(&text)?;
        Ok(file::write(&self.path.join(FILE), &bytes, Access::Public)?)
    }

    /// Where the storage is.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.path.join("store")
    }
}

/// Makes an empty directory of mode 0700; it may exist if it holds nothing but what `spared` names.
pub(super) fn make_empty(path: &Path, spared: Option<&Path>) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("can not make {}", path.display()))?;
    for entry in fs::read_dir(path).with_context(|| format!("can not read {}", path.display()))? {
        let name = entry?.file_name();
        if spared.is_none_or(|s| s.as_os_str() != name) {
            bail!("{} is not empty (it holds {}): choose an empty directory", path.display(), name.display());
        }
    }
    Ok(())
}
