//! The token file that an agent wrote for this workload, and what is kept of it: where the agent is and how it is
//! known. The secret is used once and never kept.

use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use sealane_core::name::{NameError, TrustDomain};
use sealane_trust::bundle::{Bundle, BundleError};
use sealane_trust::file::{self, Access, FileError};
use sealane_trust::pem::{self, PemError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

const FILE: &str = "agent.json";
const MAX_FILE: u64 = 256 * 1024;

/// A token file that was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// It can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no token.
    #[error("the token file is not one that sealane-agent wrote: {0}")]
    Format(String),
    /// Its trust domain is none.
    #[error("the token file is damaged: {0}")]
    Name(#[from] NameError),
}

/// Where the agent is and how it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agent {
    /// HOST:PORT each.
    pub(crate) addresses: Vec<String>,
    /// The cluster's trust domain.
    pub(crate) trust_domain: TrustDomain,
    roots: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct AgentFile {
    agent: Vec<String>,
    trust_domain: String,
    roots: Vec<String>,
}

#[derive(Deserialize)]
struct TokenFile {
    v: u32,
    #[serde(flatten)]
    agent: AgentFile,
    secret: String,
}

/// A single-use token.
pub(crate) struct Token {
    /// The agent that takes it.
    pub(crate) agent: Agent,
    secret: Vec<u8>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("agent", &self.agent).finish_non_exhaustive()
    }
}

impl Token {
    /// Reads the file.
    ///
    /// # Errors
    /// When others may read it, or it is no token.
    pub(crate) fn read(path: &Path) -> Result<Self, TokenError> {
        let bytes = file::read_private(path, MAX_FILE)?;
        let token: TokenFile =
            serde_json::from_slice(&bytes).map_err(|e| TokenError::Format(e.to_string()))?;
        if token.v != 1 {
            return Err(TokenError::Format(format!("it is of version {}, and this proxy knows 1", token.v)));
        }
        let text = token.secret.as_bytes();
        let secret = BASE64URL_NOPAD.decode(text).or_else(|_| BASE64URL.decode(text));
        let secret = secret.map_err(|_| TokenError::Format("its secret is not base64url".into()))?;
        Ok(Token { agent: token.agent.try_into()?, secret })
    }

    /// What the agent is given.
    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret
    }
}

impl TryFrom<AgentFile> for Agent {
    type Error = TokenError;
    fn try_from(file: AgentFile) -> Result<Self, TokenError> {
        Ok(Agent {
            addresses: file.agent,
            trust_domain: TrustDomain::parse(&file.trust_domain)?,
            roots: file.roots,
        })
    }
}

impl Agent {
    /// The same agent, at addresses given by hand where there are any.
    pub(crate) fn at(self, addresses: Vec<String>) -> Self {
        if addresses.is_empty() { self } else { Agent { addresses, ..self } }
    }

    /// The same agent under other roots.
    pub(crate) fn with_roots(self, bundle: &Bundle) -> Self {
        Agent { roots: vec![pem::encode_certificates(bundle.roots())], ..self }
    }

    /// Its roots.
    ///
    /// # Errors
    /// When they are none.
    pub(crate) fn bundle(&self) -> Result<Bundle, BundleError> {
        let parsed: Result<Vec<Vec<_>>, PemError> =
            self.roots.iter().map(|root| pem::certificates(root.as_bytes())).collect();
        let roots = parsed.map_err(|_| BundleError::Malformed(0))?.concat();
        Bundle::new(self.trust_domain.clone(), roots)
    }

    /// What was saved.
    pub(crate) fn load(directory: &Path) -> Option<Self> {
        let bytes = file::read(&directory.join(FILE), MAX_FILE).ok()?;
        serde_json::from_slice::<AgentFile>(&bytes).ok()?.try_into().ok()
    }

    /// Saves it.
    ///
    /// # Errors
    /// When the file can not be written.
    pub(crate) fn save(self, directory: &Path) -> Result<(), TokenError> {
        let file = AgentFile {
            agent: self.addresses,
            trust_domain: self.trust_domain.to_string(),
            roots: self.roots,
        };
        let text = serde_json::to_vec_pretty(&file).map_err(|e| TokenError::Format(e.to_string()))?;
        Ok(file::write(&directory.join(FILE), &text, Access::Private)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::Ca;

    #[test]
    fn a_token_is_read_and_its_agent_kept_without_the_secret() {
        let directory = tempfile::tempdir().unwrap();
        let ca = Ca::new("west.test");
        let roots = vec![pem::encode_certificates(ca.bundle().roots())];
        let text = serde_json::json!({
            "v": 1, "agent": ["127.0.0.1:9"], "trust_domain": "west.test", "roots": roots, "secret": "AAEC",
        });
        let path = directory.path().join("token");
        file::write(&path, text.to_string().as_bytes(), Access::Private).unwrap();
        let token = Token::read(&path).unwrap();
        assert_eq!((token.secret(), token.agent.bundle().unwrap()), (&[0u8, 1, 2][..], ca.bundle()));
        token.agent.clone().save(directory.path()).unwrap();
        assert_eq!(Agent::load(directory.path()), Some(token.agent));
        let kept = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
        assert!(!kept.contains("AAEC"));
        file::write(&path, text.to_string().as_bytes(), Access::Public).unwrap();
        assert!(matches!(Token::read(&path), Err(TokenError::File(FileError::Exposed { .. }))));
    }
}
