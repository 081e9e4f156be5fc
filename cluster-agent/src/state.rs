//! The agent's directory: what lies where, and who may hold it.
//!
//! The directory is 0700 and locked by the running agent. Every file in it is written whole or not at all.

use crate::lease::Processes;
use crate::reach::Targets;
use rustix::fs::{FlockOperation, flock};
use sealane_core::identity::{ClusterId, FederationId};
use sealane_core::name::{ClusterName, NameError, TrustDomain};
use sealane_trust::file::{self, Access, FileError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The largest of the small files.
const MAX_SMALL: u64 = 256 * 1024;

/// The directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory could not be made or locked.
    #[error("can not {what} {path}", path = .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another agent runs on it.
    #[error("{path} is in use by another agent", path = .0.display())]
    InUse(PathBuf),
    /// A file of ours is not what we wrote.
    #[error("{path} is damaged: {reason}", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What joining brought: who this cluster is, in which federation, and where its servers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The federation, pinned.
    pub federation: FederationId,
    /// Its trust domain.
    pub federation_domain: TrustDomain,
    /// This cluster's id.
    pub cluster_id: ClusterId,
    /// Its name.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// The servers, as HOST:PORT.
    pub servers: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct MembershipFile {
    v: u32,
    federation: String,
    federation_trust_domain: String,
    cluster_id: u64,
    cluster: String,
    trust_domain: String,
    servers: Vec<String>,
}

impl Membership {
    /// As it is kept.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings and a number: nothing in it can not be written.
        serde_json::to_string_pretty(&self.to_file()).unwrap_or_default()
    }

    /// What was kept.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let file: MembershipFile = serde_json::from_str(text).map_err(|e| e.to_string())?;
        Membership::from_file(file).map_err(|e| e.to_string())
    }

    fn to_file(&self) -> MembershipFile {
        MembershipFile {
            v: 1,
            federation: self.federation.to_string(),
            federation_trust_domain: self.federation_domain.to_string(),
            cluster_id: self.cluster_id.0,
            cluster: self.cluster.to_string(),
            trust_domain: self.trust_domain.to_string(),
            servers: self.servers.clone(),
        }
    }

    fn from_file(file: MembershipFile) -> Result<Self, NameError> {
        Ok(Membership {
            federation: file.federation.parse()?,
            federation_domain: file.federation_trust_domain.parse()?,
            cluster_id: ClusterId(file.cluster_id),
            cluster: file.cluster.parse()?,
            trust_domain: file.trust_domain.parse()?,
            servers: file.servers,
        })
    }
}

/// What `workload-token` needs to know of the running agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// Where proxies dial the agent, as HOST:PORT.
    pub agent: Vec<String>,
    /// The cluster's trust domain.
    pub trust_domain: String,
    /// The cluster's root, in PEM; its key may be kept elsewhere than in the directory.
    pub root: String,
    /// Where its Secrets are, of which tokens are kept in one; `None` where they are files of the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_server: Option<ApiServer>,
}

/// How an agent reaches its API server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiServer {
    /// By this kubeconfig; `None` as a pod.
    pub kubeconfig: Option<PathBuf>,
    /// The context of it.
    pub context: Option<String>,
    /// The agent's namespace.
    pub namespace: String,
}

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

/// Held while the agent runs.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl StateDir {
    /// A directory that exists already.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        StateDir(path.to_owned())
    }

    /// Makes the directory where it is missing.
    ///
    /// # Errors
    /// When it can not be made.
    pub fn create(path: &Path) -> Result<Self, StateError> {
        let state = StateDir(path.to_owned());
        for path in [state.0.clone(), state.tokens(), state.0.join("ca")] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| StateError::Io { what: "make", path, source })?;
        }
        Ok(state)
    }

    /// Takes the directory for this process.
    ///
    /// # Errors
    /// When another agent holds it.
    pub fn lock(&self) -> Result<Lock, StateError> {
        let path = self.0.join("lock");
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|source| StateError::Io { what: "open", path: path.clone(), source })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse(self.0.clone())),
            Err(e) => Err(StateError::Io { what: "lock", path, source: e.into() }),
        }
    }

    /// Workload tokens, by the hash of their secret.
    #[must_use]
    pub fn tokens(&self) -> PathBuf {
        self.0.join("tokens")
    }

    /// The certificate and key by which the agent speaks to the store, in one file so that they change together.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.0.join("agent.pem")
    }

    /// The key of a join that has not succeeded yet.
    #[must_use]
    pub fn joining_key(&self) -> PathBuf {
        self.0.join("joining.key")
    }

    /// The federation's roots.
    #[must_use]
    pub fn federation_roots(&self) -> PathBuf {
        self.0.join("federation.pem")
    }

    /// The key of the cluster's own root.
    #[must_use]
    pub fn ca_key(&self) -> PathBuf {
        self.0.join("ca/root.key")
    }

    /// The cluster's own root.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.0.join("ca/root.pem")
    }

    /// The last view.
    #[must_use]
    pub fn view(&self) -> PathBuf {
        self.0.join("view")
    }

    /// The addresses of imports.
    #[must_use]
    pub fn addresses(&self) -> PathBuf {
        self.0.join("addresses.json")
    }

    /// What joining brought; `None` before.
    ///
    /// # Errors
    /// When the file is there and can not be read.
    pub fn membership(&self) -> Result<Option<Membership>, StateError> {
        let path = self.membership_path();
        let Some(file) = read_json::<MembershipFile>(&path)? else { return Ok(None) };
        let parsed = Membership::from_file(file);
        parsed.map(Some).map_err(|e| StateError::Damaged { path, reason: e.to_string() })
    }

    /// Keeps what joining or renewing brought.
    ///
    /// # Errors
    /// When it can not be written.
    pub fn set_membership(&self, membership: &Membership) -> Result<(), StateError> {
        write_json(&self.membership_path(), &membership.to_file())
    }

    /// Whether the store said that the cluster was removed: what to do about it.
    ///
    /// # Errors
    /// When the file is there and can not be read.
    pub fn removed(&self) -> Result<Option<String>, StateError> {
        let path = self.0.join("removed");
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&file::read(&path, MAX_SMALL)?).trim().to_owned()))
    }

    /// Keeps, or forgets, that the cluster was removed.
    ///
    /// # Errors
    /// When the file can not be written or removed.
    pub fn set_removed(&self, said: Option<&str>) -> Result<(), StateError> {
        let path = self.0.join("removed");
        match said {
            Some(said) => Ok(file::write(&path, format!("{said}\n").as_bytes(), Access::Public)?),
            None if path.exists() => {
                std::fs::remove_file(&path).map_err(|source| StateError::Io { what: "remove", path, source })
            }
            None => Ok(()),
        }
    }

    /// The endpoints of clusters without gateways that answered the agent; `None` before any did.
    ///
    /// # Errors
    /// When the file is there and can not be read.
    pub fn answered(&self) -> Result<Option<Targets>, StateError> {
        let path = self.answered_path();
        let Some(file) = read_json::<BTreeMap<String, Vec<SocketAddr>>>(&path)? else { return Ok(None) };
        let named = file.into_iter().map(|(name, known)| Ok((ClusterName::parse(&name)?, known)));
        let known: Result<Targets, NameError> = named.collect();
        known.map(Some).map_err(|e| StateError::Damaged { path, reason: e.to_string() })
    }

    /// Keeps who answered.
    ///
    /// # Errors
    /// When it can not be written.
    pub fn set_answered(&self, known: &Targets) -> Result<(), StateError> {
        let file: BTreeMap<&str, &Vec<SocketAddr>> =
            known.iter().map(|(name, known)| (name.as_str(), known)).collect();
        write_json(&self.answered_path(), &file)
    }

    fn answered_path(&self) -> PathBuf {
        self.0.join("answered.json")
    }

    fn membership_path(&self) -> PathBuf {
        self.0.join("member.json")
    }

    /// Where the running agent serves its proxies; `None` before it ran.
    ///
    /// # Errors
    /// When the file is there and can not be read.
    pub fn serving(&self) -> Result<Option<Serving>, StateError> {
        read_json(&self.0.join("serving.json"))
    }

    /// The processes that had this directory before; `None` before there was one.
    ///
    /// # Errors
    /// When the file is there and can not be read.
    pub fn processes(&self) -> Result<Option<Processes>, StateError> {
        read_json(&self.0.join("processes.json"))
    }

    /// Keeps which processes had this directory.
    ///
    /// # Errors
    /// When it can not be written.
    pub fn set_processes(&self, processes: &Processes) -> Result<(), StateError> {
        write_json(&self.0.join("processes.json"), processes)
    }

    /// Keeps where the agent serves its proxies.
    ///
    /// # Errors
    /// When it can not be written.
    pub fn set_serving(&self, serving: &Serving) -> Result<(), StateError> {
        write_json(&self.0.join("serving.json"), serving)
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, StateError> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = file::read(path, MAX_SMALL)?;
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|e| StateError::Damaged { path: path.to_owned(), reason: e.to_string() })
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|e| StateError::Damaged { path: path.to_owned(), reason: e.to_string() })?;
    Ok(file::write(path, &text, Access::Private)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::create(&directory.path().join("agent")).unwrap();
        assert_eq!(state.membership().unwrap(), None);
        let membership = Membership {
            federation: FederationId([7; 16]),
            federation_domain: "fed".parse().unwrap(),
            cluster_id: ClusterId(3),
            cluster: "east".parse().unwrap(),
            trust_domain: "east.fed".parse().unwrap(),
            servers: vec!["127.0.0.1:7443".to_owned()],
        };
        state.set_membership(&membership).unwrap();
        assert_eq!(Membership::from_json(&membership.to_json()), Ok(membership.clone()));
        assert_eq!(state.membership().unwrap(), Some(membership));
        assert_eq!(state.removed().unwrap(), None);
        state.set_removed(Some("gone")).unwrap();
        assert_eq!(state.removed().unwrap().as_deref(), Some("gone"));
        state.set_removed(None).unwrap();
        assert_eq!(state.removed().unwrap(), None);
    }

    #[test]
    fn one_directory_serves_one_agent() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::create(directory.path()).unwrap();
        let lock = state.lock().unwrap();
        assert!(matches!(state.lock(), Err(StateError::InUse(_))));
        drop(lock);
        assert!(state.lock().is_ok());
    }
}
