//! Authorities and identities for the tests of this crate: real certificates, made by the code that makes them in
//! production.

use sealane_core::identity::SpiffeId;
use sealane_core::name::TrustDomain;
use sealane_trust::bundle::Bundle;
use sealane_trust::issue::{Authority, Leaf, Validity};
use sealane_trust::key::PrivateKey;
use sealane_trust::tls::Identity;
use std::time::Duration;

/// A cluster's authority.
pub(crate) struct Ca(Authority);

impl Ca {
    pub(crate) fn new(domain: &str) -> Self {
        let domain = TrustDomain::parse(domain).unwrap();
        Ca(Authority::root(&domain, "test", Self::validity()).unwrap())
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.0
    }

    fn validity() -> Validity {
        Validity::starting(sealane_trust::clock::now(), Duration::from_secs(3600))
    }

    pub(crate) fn bundle(&self) -> Bundle {
        let root = self.0.chain().last().unwrap().clone();
        Bundle::new(self.0.trust_domain().clone(), vec![root]).unwrap()
    }

    /// A chain with its key.
    pub(crate) fn certify(
        &self,
        path: &str,
    ) -> (Vec<rustls::pki_types::CertificateDer<'static>>, PrivateKey) {
        let key = PrivateKey::generate().unwrap();
        let spiffe_id = SpiffeId::parse(&format!("spiffe://{}/{path}", self.0.trust_domain())).unwrap();
        let leaf = Leaf { spiffe_id, cluster_id: None, validity: Self::validity(), dns_sans: Vec::new() };
        (self.0.issue(key.public(), &leaf).unwrap().chain, key)
    }

    pub(crate) fn identity(&self, path: &str) -> Identity {
        let (chain, key) = self.certify(path);
        Identity::new(chain, &key).unwrap()
    }
}

pub(crate) fn identity(domain: &str, path: &str) -> Identity {
    Ca::new(domain).identity(path)
}
