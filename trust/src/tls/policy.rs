//! Who is accepted as a peer.

use crate::bundle::Bundle;
use crate::svid::Svid;
use crate::verify::{Expiry, Usage, Verified, VerifyError, verify_chain};
use arc_swap::ArcSwap;
use rustls_pki_types::CertificateDer;
use sealane_core::identity::{Principal, SpiffeId};
use sealane_core::time::Millis;
use std::fmt;
use std::sync::Arc;

/// The decision on a presented chain: verified, and welcome.
pub trait PeerPolicy: Send + Sync + fmt::Debug {
    /// Checks a chain (leaf first) at a time.
    ///
    /// # Errors
    /// When the chain proves nothing or its identity is not accepted; the handshake ends then.
    fn check(&self, chain: &[CertificateDer<'_>], now: Millis, usage: Usage)
    -> Result<Verified, VerifyError>;
}

type Accept = Box<dyn Fn(&Svid) -> bool + Send + Sync>;

/// Peers of one trust domain, whose roots may be exchanged while the policy is in use.
pub struct FederationPeers {
    bundle: ArcSwap<Bundle>,
    accept: Accept,
    expiry: Expiry,
}

impl FederationPeers {
    /// Members of the bundle's trust domain that the rule accepts.
    #[must_use]
    pub fn matching(bundle: Bundle, accept: impl Fn(&Svid) -> bool + Send + Sync + 'static) -> Self {
        FederationPeers {
            bundle: ArcSwap::from_pointee(bundle),
            accept: Box::new(accept),
            expiry: Expiry::Strict,
        }
    }

    /// Principals of the federation that the rule accepts.
    #[must_use]
    pub fn principals(bundle: Bundle, accept: impl Fn(&Principal) -> bool + Send + Sync + 'static) -> Self {
        let domain = bundle.trust_domain().clone();
        Self::matching(bundle, move |svid| svid.spiffe_id.principal(&domain).is_some_and(|p| accept(&p)))
    }

    /// Federation servers.
    #[must_use]
    pub fn servers(bundle: Bundle) -> Self {
        Self::principals(bundle, |p| matches!(p, Principal::Server(_)))
    }

    /// One identity and no other.
    #[must_use]
    pub fn exactly(bundle: Bundle, id: SpiffeId) -> Self {
        Self::matching(bundle, move |svid| svid.spiffe_id == id)
    }

    /// The same, with another treatment of expired certificates.
    #[must_use]
    pub fn with_expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Exchanges the roots for new handshakes. A bundle of another trust domain is not taken.
    pub fn replace(&self, bundle: Bundle) -> bool {
        let same = bundle.trust_domain() == self.bundle.load().trust_domain();
        if same {
            self.bundle.store(Arc::new(bundle));
        }
        same
    }

    /// The roots now trusted.
    #[must_use]
    pub fn bundle(&self) -> Bundle {
        Bundle::clone(&self.bundle.load())
    }
}

impl fmt::Debug for FederationPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FederationPeers")
            .field("bundle", &self.bundle.load())
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

impl PeerPolicy for FederationPeers {
    fn check(
        &self,
        chain: &[CertificateDer<'_>],
        now: Millis,
        usage: Usage,
    ) -> Result<Verified, VerifyError> {
        let verified = verify_chain(&self.bundle.load(), chain, now, usage, self.expiry)?;
        if (self.accept)(&verified) {
            Ok(verified)
        } else {
            Err(VerifyError::WrongIdentity(verified.spiffe_id.clone()))
        }
    }
}
