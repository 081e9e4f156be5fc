//! Where what must not be lost or seen is kept: the key and certificate towards the store, and the cluster's own root.
//!
//! In the state directory; on Kubernetes in two Secrets of the agent's namespace, which all replicas share and only the
//! agent reads: they are made once, by whoever is first, and never written over without having been read.

mod secrets;

pub use secrets::{CA, IDENTITY, SecretError, Secrets};

use crate::ca::{Ca, CaError};
use crate::state::{Membership, StateDir, StateError};
use sealane_core::name::TrustDomain;
use sealane_trust::file::{self, Access, FileError};
use sealane_trust::key::{KeyError, PrivateKey};
use sealane_trust::pem;
use zeroize::Zeroizing;

/// What joining or renewing brought.
#[derive(Clone)]
pub struct Credentials {
    /// Who this cluster is.
    pub membership: Membership,
    /// Its key and certificate towards the store, in PEM, together so that they change together.
    pub identity: Zeroizing<Vec<u8>>,
    /// The federation's roots, in PEM.
    pub roots: String,
}

/// Something could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The state directory can not be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key is damaged or could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The root can not be used.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// A Secret can not be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl VaultError {
    /// Whether trying again can help: the API server may be away, or a role be given later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, VaultError::Secret(error) if error.is_transient())
    }
}

/// Where it is kept.
#[derive(Debug, Clone)]
pub enum Vault {
    /// In the state directory.
    Directory(StateDir),
    /// In Secrets.
    Secrets(Secrets),
}

impl Vault {
    /// The key of a join that has not succeeded yet; made at the first call, so that a joiner that fell over half-way may
    /// show the same one again.
    ///
    /// # Errors
    /// When it can not be read or kept.
    pub async fn joining_key(&self) -> Result<PrivateKey, VaultError> {
        match self {
            Vault::Directory(state) => {
                let path = state.joining_key();
                if path.exists() {
                    return Ok(PrivateKey::read_file(&path)?);
                }
                let key = PrivateKey::generate()?;
                key.write_file(&path)?;
                Ok(key)
            }
            Vault::Secrets(secrets) => secrets.joining_key().await,
        }
    }

    /// What joining brought; `None` before.
    ///
    /// # Errors
    /// When it is there and can not be read.
    pub async fn credentials(&self) -> Result<Option<Credentials>, VaultError> {
        match self {
            Vault::Directory(state) => {
                let Some(membership) = state.membership()? else { return Ok(None) };
                let identity = file::read_private(&state.identity(), pem::MAX_PEM as u64)?;
                let roots = file::read(&state.federation_roots(), pem::MAX_PEM as u64)?;
                let roots = String::from_utf8_lossy(&roots).into_owned();
                Ok(Some(Credentials { membership, identity, roots }))
            }
            Vault::Secrets(secrets) => secrets.credentials().await,
        }
    }

    /// Keeps what joining or renewing over `before` brought. Returns what holds now: another replica's, where that one
    /// was faster.
    ///
    /// # Errors
    /// When it can not be written.
    pub async fn keep(
        &self,
        before: Option<&Credentials>,
        brought: Credentials,
    ) -> Result<Credentials, VaultError> {
        match self {
            Vault::Directory(state) => {
                keep_files(state, &brought)?;
                Ok(brought)
            }
            Vault::Secrets(secrets) => secrets.keep(before, brought).await,
        }
    }

    /// The cluster's own root, made at the first call.
    ///
    /// # Errors
    /// When it can not be read or kept, or is another cluster's.
    pub async fn ca(&self, domain: &TrustDomain) -> Result<Ca, VaultError> {
        match self {
            Vault::Directory(state) => Ok(Ca::open(state, domain)?),
            Vault::Secrets(secrets) => secrets.ca(domain).await,
        }
    }
}

fn keep_files(state: &StateDir, brought: &Credentials) -> Result<(), VaultError> {
    file::write(&state.identity(), &brought.identity, Access::Private)?;
    file::write(&state.federation_roots(), brought.roots.as_bytes(), Access::Public)?;
    if state.membership()?.as_ref() != Some(&brought.membership) {
        // Last: with this file the cluster has joined.
        state.set_membership(&brought.membership)?;
    }
    let joining = state.joining_key();
    if joining.exists() {
        let removed = std::fs::remove_file(&joining);
        removed.map_err(|source| FileError::Io { what: "remove", path: joining, source })?;
    }
    Ok(())
}
