//! Workload tokens: single-use files by which a proxy gets its first certificate.
//!
//! Two halves: the proxy's, with the secret, and the agent's, named by the secret's hash. The agent's is changed once, to say
//! which key consumed it. It lies where the agent keeps its keys: in its directory, or in the Secret of all replicas, so that a
//! proxy may dial any of them.

use super::grant::{Claim, Grant};
use super::grants::grant_path;
use super::seal::Seal;
use crate::args::Kubernetes;
use crate::kubernetes::{self, ClientError};
use crate::state::{ApiServer, Serving, StateDir, StateError};
use crate::vault::{Secrets, VaultError};
use data_encoding::BASE64URL_NOPAD;
use sealane_core::name::{NameError, TrustDomain};
use sealane_trust::file::{self, Access, FileError};
use sealane_trust::{RandomError, clock};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// How long a token waits for its agent to come up, and after how long it says that it does.
const PATIENCE: Duration = Duration::from_secs(10);
const SAY: Duration = Duration::from_secs(1);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

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
    /// There is no way to the API server that the agent uses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The Secrets that the replicas share can not be used.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A name that the agent wrote is none.
    #[error("what the running agent wrote is damaged: {0}")]
    Name(#[from] NameError),
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
pub async fn write_workload_token(
    state_path: &Path,
    claim: Claim,
    ttl: Duration,
    out: &Path,
) -> Result<(), TokenFileError> {
    if out.exists() {
        return Err(TokenFileError::Exists(out.to_owned()));
    }
    Ok(file::write(out, &make_workload_token(state_path, claim, ttl).await?, Access::Private)?)
}

/// Makes a token, as the text of its file: the agent's half first, so that no token exists that nobody would take.
///
/// # Errors
/// When the agent never ran, or its half can not be written.
pub async fn make_workload_token(
    state_path: &Path,
    claim: Claim,
    ttl: Duration,
) -> Result<Vec<u8>, TokenFileError> {
    let state = StateDir::at(state_path);
    let serving = state.serving()?.ok_or_else(|| TokenFileError::NoAgent(state_path.to_owned()))?;
    let (nonce, grant): ([u8; 32], _) = (sealane_trust::random()?, Grant::new(claim, clock::now(), ttl));
    let secret = match &serving.api_server {
        None => {
            file::write(&grant_path(&state, &nonce), &grant.to_json()?, Access::Private)?;
            nonce.to_vec()
        }
        Some(place) => share(place, &serving, nonce, &grant).await?,
    };
    let token = TokenFile {
        v: 1,
        agent: &serving.agent,
        trust_domain: &serving.trust_domain,
        roots: [&serving.root],
        secret: BASE64URL_NOPAD.encode(&secret),
    };
    Ok(serde_json::to_vec_pretty(&token)?)
}

/// Keeps the agent's half where every replica finds it; gives the secret of the other one.
async fn share(
    place: &ApiServer,
    serving: &Serving,
    nonce: [u8; 32],
    grant: &Grant,
) -> Result<Vec<u8>, TokenFileError> {
    let ApiServer { kubeconfig, context, namespace } = place.clone();
    let args = Kubernetes { kubeconfig, context, namespace: namespace.parse()?, replica: String::new() };
    let secrets = Secrets::new(kubernetes::client(&args).await?, &args.namespace);
    let secret = Seal::of(&secrets.kept_ca(&TrustDomain::parse(&serving.trust_domain)?).await?).secret(nonce);
    secrets.grant(&secret, grant, clock::now()).await.map_err(VaultError::from)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::super::grant::{Checked, Redeemed};
    use super::super::grants::Grants;
    use super::*;
    use sealane_core::time::Millis;

    fn agent(directory: &Path) -> StateDir {
        let state = StateDir::create(directory).unwrap();
        let trust_domain = "east.fed".to_owned();
        let (agent, root) = (vec!["127.0.0.1:1".to_owned()], "the root".to_owned());
        state.set_serving(&Serving { agent, trust_domain, root, api_server: None }).unwrap();
        state
    }

    fn secret(path: &Path) -> Vec<u8> {
        let token: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        BASE64URL_NOPAD.decode(token["secret"].as_str().unwrap().as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_token_is_good_for_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let grants = Grants::new(agent(directory.path()));
        let out = directory.path().join("token");
        let claim = Claim::workload(&"shop".parse().unwrap(), &"cart".parse().unwrap());
        write_workload_token(directory.path(), claim, Duration::from_secs(60), &out).await.unwrap();
        let again =
            write_workload_token(directory.path(), Claim::Gateway, Duration::from_secs(60), &out).await;
        assert!(matches!(again, Err(TokenFileError::Exists(_))));
        let secret = secret(&out);
        let granted = Redeemed::Granted(Checked::Workload("shop".parse().unwrap(), "cart".parse().unwrap()));
        assert_eq!(grants.redeem(&secret, [1; 32]).await, granted);
        assert_eq!(grants.redeem(&secret, [1; 32]).await, granted);
        assert!(matches!(grants.redeem(&secret, [2; 32]).await, Redeemed::Refused(_)));
        assert!(matches!(grants.redeem(&[0; 32], [1; 32]).await, Redeemed::Refused(_)));
        assert!(matches!(grants.redeem(b"../../x", [1; 32]).await, Redeemed::Refused(_)));
    }

    #[tokio::test]
    async fn a_token_says_all_that_a_proxy_needs_whose_agent_keeps_its_root_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        agent(directory.path());
        let token =
            make_workload_token(directory.path(), Claim::Gateway, Duration::from_secs(60)).await.unwrap();
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

    #[tokio::test]
    async fn an_expired_token_is_refused_and_swept() {
        let directory = tempfile::tempdir().unwrap();
        let state = agent(directory.path());
        let grants = Grants::new(state.clone());
        let grant = Grant::new(Claim::Gateway, Millis(0), Duration::from_millis(1));
        let path = grant_path(&state, &[9; 32]);
        file::write(&path, &serde_json::to_vec(&grant).unwrap(), Access::Private).unwrap();
        assert!(matches!(grants.redeem(&[9; 32], [1; 32]).await, Redeemed::Refused(_)));
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
        write_workload_token(&directory, Claim::Gateway, Duration::from_secs(60), &out).await.unwrap();
    }

    #[tokio::test]
    async fn without_an_agent_there_is_no_token() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("token");
        let made =
            write_workload_token(directory.path(), Claim::Gateway, Duration::from_secs(60), &out).await;
        assert!(matches!(made, Err(TokenFileError::NoAgent(_))));
        assert!(!out.exists());
    }
}
