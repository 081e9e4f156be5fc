//! The administrator's context: who we are, which federation, and where its servers are.

use anyhow::{Context as _, Result, bail};
use sealane_core::name::TrustDomain;
use sealane_trust::bundle::Bundle;
use sealane_trust::file::{self, Access};
use sealane_trust::key::PrivateKey;
use sealane_trust::pem;
use sealane_trust::rustls::ClientConfig;
use sealane_trust::tls::{self, FederationPeers, Identity};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How the command is run where its context is, with the chart's names.
const IN_POD: &str = "kubectl --namespace sealane-system exec -i sealane-federation-0 -c server -- /sealane";
/// The largest file that is read of a context.
const MAX_FILE: u64 = 256 * 1024;

/// Where one server is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// HOST:PORT of gRPC.
    pub grpc: String,
    /// HOST:PORT of the status API.
    pub status: String,
}

/// The file `context.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ContextFile {
    federation: String,
    trust_domain: String,
    servers: Vec<Reach>,
}

/// A context directory, read and checked.
#[derive(Debug, Clone)]
pub struct Context {
    directory: PathBuf,
    file: ContextFile,
    identity: Identity,
    bundle: Bundle,
}

impl Context {
    /// Reads a context directory.
    ///
    /// # Errors
    /// When a file is missing, damaged, or readable by others.
    pub fn load(directory: &Path) -> Result<Self> {
        if !directory.is_dir() {
            bail!(
                "there is no context in {}: name one by --context or SEALANE_CONTEXT (`sealane federation init \
                 --admin-out DIR` writes the first). Where the servers run on Kubernetes their pods have one: {IN_POD} ...",
                directory.display()
            );
        }
        let text = file::read(&directory.join("context.json"), MAX_FILE)?;
        let parsed: ContextFile = serde_json::from_slice(&text).context("context.json is damaged")?;
        if parsed.servers.is_empty() {
            bail!("context.json names no server");
        }
        let domain = TrustDomain::parse(&parsed.trust_domain).context("context.json")?;
        let certificates = |name: &str| -> Result<_> {
            pem::certificates(&file::read(&directory.join(name), MAX_FILE)?)
                .with_context(|| format!("{name} is damaged"))
        };
        let key = PrivateKey::read_file(&directory.join("identity.key"))?;
        let identity = Identity::new(certificates("identity.pem")?, &key).context("identity.pem")?;
        let bundle = Bundle::new(domain, certificates("roots.pem")?).context("roots.pem")?;
        Ok(Context { directory: directory.to_owned(), file: parsed, identity, bundle })
    }

    /// Writes the file that names a federation and its servers.
    ///
    /// # Errors
    /// When it can not be written.
    pub fn write_file(
        directory: &Path,
        federation: &str,
        trust_domain: &TrustDomain,
        servers: Vec<Reach>,
    ) -> Result<()> {
        let (federation, trust_domain) = (federation.to_owned(), trust_domain.to_string());
        let text = serde_json::to_vec_pretty(&ContextFile { federation, trust_domain, servers })?;
        Ok(file::write(&directory.join("context.json"), &text, Access::Public)?)
    }

    /// The federation's id, in hexadecimal digits.
    #[must_use]
    pub fn federation(&self) -> &str {
        &self.file.federation
    }

    /// The federation's trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// The federation's roots.
    #[must_use]
    pub fn roots(&self) -> &[sealane_trust::CertificateDer<'static>] {
        self.bundle.roots()
    }

    /// Where the servers are.
    #[must_use]
    pub fn servers(&self) -> &[Reach] {
        &self.file.servers
    }

    /// Puts the servers with these gRPC addresses first.
    pub fn prefer(&mut self, grpc: &[String]) {
        self.file.servers.sort_by_key(|s| !grpc.contains(&s.grpc));
    }

    /// Forgets all servers but the one with this gRPC address.
    ///
    /// # Errors
    /// When there is none.
    pub fn keep_only(&mut self, grpc: &str) -> Result<()> {
        self.file.servers.retain(|s| s.grpc == grpc);
        if self.file.servers.is_empty() {
            bail!("the context has no server {grpc}");
        }
        Ok(())
    }

    /// Forgets all servers, and knows this one.
    pub fn move_to(&mut self, reach: Reach) {
        self.file.servers = vec![reach];
    }

    /// TLS to the servers and no one else, as the administrator.
    #[must_use]
    pub fn tls(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        tls::client_config(
            Some(&self.identity),
            Arc::new(FederationPeers::servers(self.bundle.clone())),
            alpn,
        )
    }

    /// Says so when the certificate is expired, in words that help.
    ///
    /// # Errors
    /// When it is expired.
    pub fn check_expiry(&self) -> Result<()> {
        if self.identity.current().is_expired(sealane_trust::clock::now()) {
            bail!(
                "the certificate in {} is expired: make a new context on a server",
                self.directory.display()
            );
        }
        Ok(())
    }

    /// Remembers where the servers are now. Nothing is written when nothing changed.
    ///
    /// # Errors
    /// When the file can not be written.
    pub fn remember(&mut self, mut servers: Vec<Reach>) -> Result<bool> {
        servers.sort_by(|a, b| a.grpc.cmp(&b.grpc));
        let mut known = self.file.servers.clone();
        known.sort_by(|a, b| a.grpc.cmp(&b.grpc));
        if servers.is_empty() || servers == known {
            return Ok(false);
        }
        self.file.servers = servers;
        let text = serde_json::to_vec_pretty(&self.file).context("context.json")?;
        file::write(&self.directory.join("context.json"), &text, Access::Public)?;
        Ok(true)
    }
}

/// The context directory when none is named: `~/.sealane`.
#[must_use]
pub fn default_directory() -> PathBuf {
    std::env::home_dir().unwrap_or_default().join(".sealane")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_context_is_told_where_there_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let said = Context::load(&directory.path().join("none")).unwrap_err().to_string();
        assert!(said.starts_with("there is no context in /") && said.contains("SEALANE_CONTEXT"), "{said}");
        assert!(said.ends_with("exec -i sealane-federation-0 -c server -- /sealane ..."), "{said}");
    }
}
