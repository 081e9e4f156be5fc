//! What the tests of this crate share: a federation with a root, an issuing server and leaves.

use crate::bundle::Bundle;
use crate::clock;
use crate::issue::{Authority, Issued, Leaf, Validity};
use crate::key::PrivateKey;
use crate::tls::Identity;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use sealane_core::identity::{ClusterId, SpiffeId};
use sealane_core::name::TrustDomain;
use sealane_core::time::Millis;
use std::time::Duration;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("fed.example").unwrap()
}

pub(crate) fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://fed.example/{path}")).unwrap()
}

/// A root, and the intermediate of a server under it.
pub(crate) struct Federation {
    pub(crate) root: Authority,
    pub(crate) issuing: Authority,
    pub(crate) now: Millis,
}

impl Federation {
    pub(crate) fn new() -> Self {
        Federation::of(&domain())
    }

    pub(crate) fn of(domain: &TrustDomain) -> Self {
        let now = clock::now();
        // Old enough to have signed what has expired meanwhile.
        let since = Millis(now.0 - clock::millis(100 * DAY));
        let lasting =
            |span: Duration| Validity { not_before: since, not_after: now.plus(clock::millis(span)) };
        let root = Authority::root(domain, "root", lasting(3650 * DAY)).unwrap();
        let key = PrivateKey::generate().unwrap();
        let issuing = root.intermediate(key, "server 1", lasting(365 * DAY)).unwrap();
        Federation { root, issuing, now }
    }

    pub(crate) fn bundle(&self) -> Bundle {
        Bundle::new(self.root.trust_domain().clone(), vec![self.root.root_certificate().clone()]).unwrap()
    }

    /// A leaf that is valid for a span from now.
    pub(crate) fn leaf(&self, path: &str, span: Duration) -> (Issued, PrivateKey) {
        self.leaf_within(path, Validity::starting(clock::now(), span))
    }

    pub(crate) fn leaf_within(&self, path: &str, validity: Validity) -> (Issued, PrivateKey) {
        let key = PrivateKey::generate().unwrap();
        let spiffe_id = SpiffeId::parse(&format!("spiffe://{}/{path}", self.root.trust_domain())).unwrap();
        let cluster_id = path.starts_with("agent/").then_some(ClusterId(7));
        let leaf = Leaf { spiffe_id, cluster_id, validity, dns_sans: Vec::new() };
        (self.issuing.issue(key.public(), &leaf).unwrap(), key)
    }

    pub(crate) fn identity(&self, path: &str) -> Identity {
        let (issued, key) = self.leaf(path, DAY);
        Identity::new(issued.chain, &key).unwrap()
    }

    /// A leaf as no honest issuer makes it, with the chain behind it.
    pub(crate) fn forged(
        &self,
        change: impl FnOnce(&mut rcgen::CertificateParams),
    ) -> Vec<CertificateDer<'static>> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri("spiffe://fed.example/server/1")];
        change(&mut params);
        let key = PrivateKey::generate().unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_der(&self.issuing.chain()[0], self.issuing.key()).unwrap();
        let leaf = params.signed_by(key.public(), &issuer).unwrap();
        std::iter::once(leaf.into()).chain(self.issuing.chain().iter().cloned()).collect()
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn signing(params: &mut rcgen::CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}
