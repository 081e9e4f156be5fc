//! Workload tokens: single-use files by which a proxy gets its first certificate.
//!
//! Two files: the proxy's, with the secret, and the agent's, named by the secret's hash. The agent's is changed once,
//! to say which key consumed it; the same key may come again (its reply may have been lost) until the token expires.

use crate::state::{StateDir, StateError};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use sealane_core::identity::SpiffeId;
use sealane_core::name::{Namespace, ServiceAccount, TrustDomain};
use sealane_trust::file::{self, Access, FileError};
use sealane_trust::{RandomError, clock};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a token waits for its agent to come up, and after how long it says that it does.
const PATIENCE: Duration = Duration::from_secs(10);
const SAY: Duration = Duration::from_secs(1);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

/// The largest token file.
const MAX_FILE: u64 = 16 * 1024;

/// Who a token makes of its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// A workload.
    Workload {
        /// Its namespace.
        namespace: String,
        /// Its ServiceAccount.
        service_account: String,
    },
    /// A gateway.
    Gateway,
}

impl Claim {
    /// A workload's.
    #[must_use]
    pub fn workload(namespace: &Namespace, account: &ServiceAccount) -> Self {
        Claim::Workload { namespace: namespace.to_string(), service_account: account.to_string() }
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Claim::Gateway => Ok(()),
            Claim::Workload { namespace, service_account } => {
                Namespace::parse(namespace).map_err(|e| e.to_string())?;
                ServiceAccount::parse(service_account).map(|_| ()).map_err(|e| e.to_string())
            }
        }
    }
}

/// A claim whose names were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// A workload.
    Workload(Namespace, ServiceAccount),
    /// A gateway.
    Gateway,
}

impl Checked {
    /// The identity that the claim stands for.
    #[must_use]
    pub fn spiffe_id(&self, domain: &TrustDomain) -> SpiffeId {
        match self {
            Checked::Workload(namespace, account) => SpiffeId::workload(domain, namespace, account),
            Checked::Gateway => SpiffeId::gateway(domain),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Grant {
    v: u32,
    claim: Claim,
    expires_ms: u64,
    consumed_by: Option<String>,
}

#[derive(Serialize)]
struct TokenFile<'a> {
    v: u32,
    agent: &'a [String],
    trust_domain: &'a str,
    roots: [&'a str; 1],
    secret: String,
}

/// A token was not made.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The agent never ran on this directory.
    #[error("{path} is no running agent's directory: start `sealane-agent run --dir` on it first", path = .0.display())]
    NoAgent(PathBuf),
    /// Something is there already.
    #[error("{path} exists: a token is not written over another file", path = .0.display())]
    Exists(PathBuf),
    /// The state directory can not be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It could not be encoded.
    #[error("can not encode the token")]
    Encode(#[from] serde_json::Error),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Waits a moment for an agent that was just started on this directory; whether it came up is for the next step to say.
///
/// # Errors
/// When the directory can not be read.
pub async fn await_agent(state_path: &Path) -> Result<(), TokenFileError> {
    let state = StateDir::at(state_path);
    let began = Instant::now();
    let mut said = false;
    while state.serving()?.is_none() && began.elapsed() < PATIENCE {
        if !said && began.elapsed() >= SAY {
            tracing::info!(dir = %state_path.display(), "waiting for the agent to come up");
            said = true;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Makes a token and writes it into a file.
///
/// # Errors
/// When the agent never ran, or a file can not be written.
pub fn write_workload_token(
    state_path: &Path,
    claim: Claim,
    ttl: Duration,
    out: &Path,
) -> Result<(), TokenFileError> {
    if out.exists() {
        return Err(TokenFileError::Exists(out.to_owned()));
    }
    Ok(file::write(out, &make_workload_token(state_path, claim, ttl)?, Access::Private)?)
}

/// Makes a token, as the text of its file: the agent's half first, so that no token exists that nobody would take.
///
/// # Errors
/// When the agent never ran, or its half can not be written.
pub fn make_workload_token(
    state_path: &Path,
    claim: Claim,
    ttl: Duration,
) -> Result<Vec<u8>, TokenFileError> {
    let state = StateDir::at(state_path);
    let serving = state.serving()?.ok_or_else(|| TokenFileError::NoAgent(state_path.to_owned()))?;
    let secret: [u8; 32] = sealane_trust::random()?;
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let grant = Grant { v: 1, claim, expires_ms: clock::now().plus(ttl_ms).0, consumed_by: None };
    file::write(&grant_path(&state, &secret), &serde_json::to_vec(&grant)?, Access::Private)?;
    let token = TokenFile {
        v: 1,
        agent: &serving.agent,
        trust_domain: &serving.trust_domain,
        roots: [&serving.root],
        secret: BASE64URL_NOPAD.encode(&secret),
    };
    Ok(serde_json::to_vec_pretty(&token)?)
}

fn grant_path(state: &StateDir, secret: &[u8]) -> PathBuf {
    state.tokens().join(HEXLOWER.encode(&sealane_trust::sha256(secret)))
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// It is good for this.
    Granted(Checked),
    /// It is not; the reason is for its holder.
    Refused(&'static str),
    /// The agent can not tell; the reason is for its log.
    Failed(String),
}

/// The tokens that the agent may still take.
#[derive(Debug)]
pub struct Grants {
    state: StateDir,
    /// One at a time: two holders of one token must not both find it unused.
    redeeming: Mutex<()>,
}

impl Grants {
    /// Those of a state directory.
    #[must_use]
    pub fn new(state: StateDir) -> Self {
        Grants { state, redeeming: Mutex::new(()) }
    }

    /// Takes a token in for a key.
    #[must_use]
    pub fn redeem(&self, secret: &[u8], key: [u8; 32]) -> Redeemed {
        const UNKNOWN: &str =
            "the token is unknown: make one with `sealane-agent workload-token` on this agent";
        if secret.len() != 32 {
            return Redeemed::Refused(UNKNOWN);
        }
        let path = grant_path(&self.state, secret);
        let _one = self.redeeming.lock().unwrap_or_else(PoisonError::into_inner);
        if !path.exists() {
            return Redeemed::Refused(UNKNOWN);
        }
        match self.take(&path, &HEXLOWER.encode(&key)) {
            Ok(redeemed) => redeemed,
            Err(error) => Redeemed::Failed(error),
        }
    }

    fn take(&self, path: &Path, key: &str) -> Result<Redeemed, String> {
        let text = file::read_private(path, MAX_FILE).map_err(|e| e.to_string())?;
        let mut grant: Grant = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
        grant.claim.check()?;
        if grant.expires_ms < clock::now().0 {
            return Ok(Redeemed::Refused("the token expired: make another one"));
        }
        match &grant.consumed_by {
            Some(other) if other != key => {
                return Ok(Redeemed::Refused("the token was used already: make another one"));
            }
            Some(_) => {}
            None => {
                grant.consumed_by = Some(key.to_owned());
                let text = serde_json::to_vec(&grant).map_err(|e| e.to_string())?;
                file::write(path, &text, Access::Private).map_err(|e| e.to_string())?;
            }
        }
        Ok(Redeemed::Granted(match &grant.claim {
            Claim::Gateway => Checked::Gateway,
            Claim::Workload { namespace, service_account } => Checked::Workload(
                Namespace::parse(namespace).map_err(|e| e.to_string())?,
                ServiceAccount::parse(service_account).map_err(|e| e.to_string())?,
            ),
        }))
    }

    /// Removes what expired.
    ///
    /// # Errors
    /// When the directory can not be read.
    pub fn sweep(&self) -> std::io::Result<()> {
        let now = clock::now().0;
        for entry in std::fs::read_dir(self.state.tokens())? {
            let path = entry?.path();
            let grant = file::read_private(&path, MAX_FILE)
                .ok()
                .and_then(|t| serde_json::from_slice::<Grant>(&t).ok());
            if grant.is_some_and(|g| g.expires_ms < now) {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Serving;

    fn agent(directory: &Path) -> StateDir {
        let state = StateDir::create(directory).unwrap();
        let trust_domain = "east.fed".to_owned();
        let (agent, root) = (vec!["127.0.0.1:1".to_owned()], "the root".to_owned());
        state.set_serving(&Serving { agent, trust_domain, root }).unwrap();
        state
    }

    fn secret(path: &Path) -> Vec<u8> {
        let token: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        BASE64URL_NOPAD.decode(token["secret"].as_str().unwrap().as_bytes()).unwrap()
    }

    #[test]
    fn a_token_is_good_for_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let grants = Grants::new(agent(directory.path()));
        let out = directory.path().join("token");
        let claim = Claim::workload(&"shop".parse().unwrap(), &"cart".parse().unwrap());
        write_workload_token(directory.path(), claim, Duration::from_secs(60), &out).unwrap();
        let again = write_workload_token(directory.path(), Claim::Gateway, Duration::from_secs(60), &out);
        assert!(matches!(again, Err(TokenFileError::Exists(_))));
        let secret = secret(&out);
        let granted = Redeemed::Granted(Checked::Workload("shop".parse().unwrap(), "cart".parse().unwrap()));
        assert_eq!(grants.redeem(&secret, [1; 32]), granted);
        assert_eq!(grants.redeem(&secret, [1; 32]), granted);
        assert!(matches!(grants.redeem(&secret, [2; 32]), Redeemed::Refused(_)));
        assert!(matches!(grants.redeem(&[0; 32], [1; 32]), Redeemed::Refused(_)));
        assert!(matches!(grants.redeem(b"../../x", [1; 32]), Redeemed::Refused(_)));
    }

    #[test]
    fn a_token_says_all_that_a_proxy_needs_whose_agent_keeps_its_root_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        agent(directory.path());
        let token = make_workload_token(directory.path(), Claim::Gateway, Duration::from_secs(60)).unwrap();
        let token: serde_json::Value = serde_json::from_slice(&token).unwrap();
        let expected = serde_json::json!({
            "v": 1,
            "agent": ["127.0.0.1:1"],
            "trust_domain": "east.fed",
            "roots": ["the root"],
            "secret": token["secret"],
        });
        assert_eq!(token, expected);
    }

    #[test]
    fn an_expired_token_is_refused_and_swept() {
        let directory = tempfile::tempdir().unwrap();
        let state = agent(directory.path());
        let grants = Grants::new(state.clone());
        let grant = Grant { v: 1, claim: Claim::Gateway, expires_ms: 1, consumed_by: None };
        let path = grant_path(&state, &[9; 32]);
        file::write(&path, &serde_json::to_vec(&grant).unwrap(), Access::Private).unwrap();
        assert!(matches!(grants.redeem(&[9; 32], [1; 32]), Redeemed::Refused(_)));
        grants.sweep().unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_token_waits_for_an_agent_that_is_just_starting() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("agent");
        let waiting = tokio::spawn({
            let directory = directory.clone();
            async move { await_agent(&directory).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        agent(&directory);
        waiting.await.unwrap().unwrap();
        let out = parent.path().join("token");
        write_workload_token(&directory, Claim::Gateway, Duration::from_secs(60), &out).unwrap();
    }

    #[test]
    fn without_an_agent_there_is_no_token() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("token");
        let made = write_workload_token(directory.path(), Claim::Gateway, Duration::from_secs(60), &out);
        assert!(matches!(made, Err(TokenFileError::NoAgent(_))));
        assert!(!out.exists());
    }
}
