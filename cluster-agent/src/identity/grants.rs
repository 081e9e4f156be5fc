//! The tokens that an agent may still take: in its directory, or in the Secret that all replicas share.

use super::grant::{Grant, Redeemed};
use super::seal::Seal;
use crate::state::StateDir;
use crate::vault::{Secrets, Vault};
use sealane_trust::clock;
use sealane_trust::file::{self, Access};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;

/// The largest file of a token.
const MAX_FILE: u64 = 16 * 1024;

/// The tokens that the agent may still take.
#[derive(Debug)]
pub struct Grants {
    kept: Kept,
    /// One at a time: two holders of one token must not both find it unused. Replicas are kept apart by the Secret's version.
    redeeming: Arc<Mutex<()>>,
}

#[derive(Debug)]
enum Kept {
    Directory(StateDir),
    Secrets(Secrets, Seal),
}

impl Grants {
    /// Those of a state directory.
    #[must_use]
    pub fn new(state: StateDir) -> Self {
        Grants { kept: Kept::Directory(state), redeeming: Arc::default() }
    }

    /// Those of a vault, whose secrets bear a seal where it is shared.
    #[must_use]
    pub fn of(vault: &Vault, seal: Seal) -> Self {
        let kept = match vault {
            Vault::Directory(state) => Kept::Directory(state.clone()),
            Vault::Secrets(secrets) => Kept::Secrets(secrets.clone(), seal),
        };
        Grants { kept, redeeming: Arc::default() }
    }

    /// Takes a token in for a key.
    pub async fn redeem(&self, secret: &[u8], key: [u8; 32]) -> Redeemed {
        let one = self.redeeming.clone().lock_owned().await;
        match &self.kept {
            Kept::Directory(state) => {
                let path = grant_path(state, secret);
                // Whoever asked may be gone before it is done; the next one still waits for it.
                let taken = tokio::task::spawn_blocking(move || {
                    let _one = one;
                    take(&path, key)
                })
                .await;
                taken.map_err(|e| e.to_string()).flatten().unwrap_or_else(Redeemed::Failed)
            }
            // Anybody may come with anything: what no agent of this cluster made costs no request.
            Kept::Secrets(_, seal) if !seal.is_on(secret) => Redeemed::UNKNOWN,
            Kept::Secrets(secrets, _) => {
                let redeemed = secrets.redeem(secret, key, clock::now()).await;
                redeemed.unwrap_or_else(|error| Redeemed::Failed(error.to_string()))
            }
        }
    }

    /// Removes what expired; a Secret's are removed with its next token.
    ///
    /// # Errors
    /// When the directory can not be read.
    pub fn sweep(&self) -> std::io::Result<()> {
        let Kept::Directory(state) = &self.kept else { return Ok(()) };
        let now = clock::now();
        for entry in std::fs::read_dir(state.tokens())? {
            let path = entry?.path();
            let grant = file::read_private(&path, MAX_FILE).ok().and_then(|t| Grant::parse(&t).ok());
            if grant.is_some_and(|g| g.expired(now)) {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// Where the agent's half of a token is, in a directory.
pub(super) fn grant_path(state: &StateDir, secret: &[u8]) -> PathBuf {
    state.tokens().join(Grant::name(secret))
}

fn take(path: &Path, key: [u8; 32]) -> Result<Redeemed, String> {
    if !path.exists() {
        return Ok(Redeemed::UNKNOWN);
    }
    let text = file::read_private(path, MAX_FILE).map_err(|e| e.to_string())?;
    let (redeemed, changed) = Grant::parse(&text)?.take(key, clock::now())?;
    if let Some(grant) = changed {
        let text = grant.to_json().map_err(|e| e.to_string())?;
        file::write(path, &text, Access::Private).map_err(|e| e.to_string())?;
    }
    Ok(redeemed)
}
