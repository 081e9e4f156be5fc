//! The cluster's own root of trust. Its key never leaves the state directory, or the Secret that stands for it.

use crate::state::StateDir;
use sealane_core::identity::SpiffeId;
use sealane_core::name::TrustDomain;
use sealane_core::trust::Bundle as BundleRecord;
use sealane_trust::bundle::{Bundle, BundleError};
use sealane_trust::clock;
use sealane_trust::file::{self, Access, FileError};
use sealane_trust::issue::{Authority, IssueError, Issued, Leaf, Validity};
use sealane_trust::key::{KeyError, PrivateKey, PublicKey};
use sealane_trust::tls::{Identity, IdentityError};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long the root lasts.
const ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How often importers should look for a newer bundle, in seconds. The store pushes; this is for other consumers.
const REFRESH_HINT_S: u32 = 300;

/// The authority could not be made, loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// It could not be made, or it refused to sign.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// Its files could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its key could not be read or written.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its certificate is no root.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// What it issued to ourselves can not be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The root that is kept is another cluster's.
    #[error("what is kept is the root of {found}, and this cluster is {expected}")]
    Foreign {
        /// Whose root was found.
        found: TrustDomain,
        /// Who this cluster is.
        expected: TrustDomain,
    },
}

fn root(domain: &TrustDomain) -> Result<Authority, IssueError> {
    let validity = Validity::starting(clock::now(), ROOT_TTL);
    Authority::root(domain, &format!("Sealane root of {domain}"), validity)
}

/// The cluster's authority.
#[derive(Debug, Clone)]
pub struct Ca {
    authority: Authority,
    bundle: Bundle,
}

impl Ca {
    /// Loads the root, or makes it at the first call. The key is written before the certificate: a certificate
    /// without its key would be a root that can sign nothing.
    ///
    /// # Errors
    /// When the files can not be read or written, or hold the root of another trust domain.
    pub fn open(state: &StateDir, domain: &TrustDomain) -> Result<Self, CaError> {
        let (key, certificate) = (state.ca_key(), state.ca_certificate());
        let authority = if certificate.exists() {
            let chain = file::read(&certificate, 256 * 1024)?;
            Authority::load(&chain, PrivateKey::read_file(&key)?.to_pem().as_bytes())?
        } else {
            let made = root(domain)?;
            made.key().write_file(&key)?;
            file::write(&certificate, made.chain_pem().as_bytes(), Access::Public)?;
            tracing::info!(trust_domain = %domain, "made the cluster's root");
            made
        };
        Ca::of(authority, domain)
    }

    /// Makes a root that is kept nowhere yet.
    ///
    /// # Errors
    /// When there are no random bytes.
    pub fn make(domain: &TrustDomain) -> Result<Self, CaError> {
        Ca::of(root(domain)?, domain)
    }

    /// Takes a root that was kept, in PEM.
    ///
    /// # Errors
    /// When it is damaged, or of another trust domain.
    pub fn load(certificate: &[u8], key: &[u8], domain: &TrustDomain) -> Result<Self, CaError> {
        Ca::of(Authority::load(certificate, key)?, domain)
    }

    /// The root's certificate, in PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.authority.chain_pem()
    }

    /// The root's key, in PEM.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.authority.key().to_pem()
    }

    fn of(authority: Authority, domain: &TrustDomain) -> Result<Self, CaError> {
        if authority.trust_domain() != domain {
            let found = authority.trust_domain().clone();
            return Err(CaError::Foreign { found, expected: domain.clone() });
        }
        let bundle = Bundle::new(domain.clone(), vec![authority.root_certificate().clone()])?;
        Ok(Ca { authority, bundle })
    }

    /// The roots that members of this cluster are verified to.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The roots as other clusters learn of them. Nothing rotates yet, so this is the first and only sequence.
    #[must_use]
    pub fn record(&self) -> BundleRecord {
        BundleRecord {
            trust_domain: self.authority.trust_domain().clone(),
            sequence: 1,
            refresh_hint_s: REFRESH_HINT_S,
            roots: self.bundle.roots().iter().map(|root| root.to_vec()).collect(),
        }
    }

    /// Issues a certificate.
    ///
    /// # Errors
    /// When the id is of another trust domain or the root's time is over.
    pub fn issue(&self, key: &PublicKey, id: SpiffeId, ttl: Duration) -> Result<Issued, CaError> {
        let validity = Validity::starting(clock::now(), ttl);
        let leaf = Leaf { spiffe_id: id, cluster_id: None, validity, dns_sans: Vec::new() };
        Ok(self.authority.issue(key, &leaf)?)
    }

    /// A certificate for the agent itself, as its proxies see it.
    ///
    /// # Errors
    /// When it can not be issued.
    pub fn own(&self, ttl: Duration) -> Result<(Issued, PrivateKey), CaError> {
        let key = PrivateKey::generate()?;
        let id = SpiffeId::cluster_agent(self.authority.trust_domain());
        Ok((self.issue(key.public(), id, ttl)?, key))
    }

    /// The agent's identity towards its proxies.
    ///
    /// # Errors
    /// When it can not be issued.
    pub fn own_identity(&self, ttl: Duration) -> Result<Identity, CaError> {
        let (issued, key) = self.own(ttl)?;
        Ok(Identity::new(issued.chain, &key)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_made_once_and_is_one_clusters() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::create(directory.path()).unwrap();
        let east = TrustDomain::parse("east.fed").unwrap();
        let made = Ca::open(&state, &east).unwrap();
        assert_eq!(Ca::open(&state, &east).unwrap().record(), made.record());
        let other = Ca::open(&state, &TrustDomain::parse("west.fed").unwrap()).unwrap_err();
        assert!(matches!(other, CaError::Foreign { .. }), "{other}");
        let identity = made.own_identity(Duration::from_secs(60)).unwrap();
        assert_eq!(identity.current().spiffe_id, SpiffeId::cluster_agent(&east));
    }
}
