//! Certificates as no honest issuer makes them, signed by keys that an attacker has: those of its own cluster.

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use sealane::local::Site;
use sealane_core::identity::SpiffeId;
use sealane_core::name::TrustDomain;
use sealane_core::service::{
    Export, ExportSpec, InternalTrafficPolicy, IpFamily, Port, Protocol, ServiceType, SessionAffinity,
};
use sealane_core::time::Millis;
use sealane_trust::bundle::Bundle;
use sealane_trust::issue::{Authority, Leaf, Validity};
use sealane_trust::key::PrivateKey;
use sealane_trust::tls::Identity;
use sealane_trust::{CertificateDer, clock, pem};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long what is forged here is valid.
const LIFE: Duration = Duration::from_secs(3600);

/// A cluster's own authority, with its key: who runs the cluster has it.
///
/// # Errors
/// When its files can not be read.
pub fn authority(site: &Site) -> Result<Authority> {
    let directory = site.state().join("ca");
    let read = |name: &str| std::fs::read(directory.join(name)).with_context(|| name.to_owned());
    Ok(Authority::load(&read("root.pem")?, &read("root.key")?)?)
}

/// The identity of an agent towards the servers, as it lies on its disk.
///
/// # Errors
/// When its file can not be read.
pub fn agent(site: &Site) -> Result<Identity> {
    let text = std::fs::read(site.state().join("agent.pem")).context("agent.pem")?;
    Ok(Identity::new(pem::certificates(&text)?, &PrivateKey::from_pem(&text)?)?)
}

/// The key of that identity.
///
/// # Errors
/// When its file can not be read.
pub fn agent_key(site: &Site) -> Result<PrivateKey> {
    Ok(PrivateKey::from_pem(&std::fs::read(site.state().join("agent.pem")).context("agent.pem")?)?)
}

/// The federation's roots, as an agent has them.
///
/// # Errors
/// When its file can not be read.
pub fn roots(site: &Site) -> Result<Bundle> {
    let text = std::fs::read(site.state().join("federation.pem")).context("federation.pem")?;
    Ok(Bundle::new(TrustDomain::parse("sealane.local")?, pem::certificates(&text)?)?)
}

/// A certificate request that asks for an identity of the asker's choice.
///
/// # Errors
/// When it can not be made.
pub fn request(key: &PrivateKey, id: &str) -> Result<Vec<u8>> {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// An export of one port.
///
/// # Errors
/// When its names are refused.
pub fn export() -> Result<Export> {
    let port = Port { name: "http".parse()?, protocol: Protocol::Tcp, port: 80, app_protocol: None };
    let spec = ExportSpec {
        service_type: ServiceType::ClusterSetIp,
        ports: vec![port],
        session_affinity: SessionAffinity::None,
        session_affinity_timeout_s: None,
        internal_traffic_policy: InternalTrafficPolicy::Cluster,
        traffic_distribution: None,
        ip_families: vec![IpFamily::V4],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    };
    Ok(Export { spec: Ok(spec), importers: None, created: Millis(0) })
}

/// A leaf for any identity, also of another trust domain, signed by an authority; behind it the authority's chain and
/// then whatever else is to be presented.
///
/// # Errors
/// When it can not be made.
pub fn identity(by: &Authority, id: &str, appended: &[CertificateDer<'static>]) -> Result<Identity> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_after = (std::time::SystemTime::now() + LIFE).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
    let key = PrivateKey::generate()?;
    let leaf = params.signed_by(key.public(), &rcgen::Issuer::from_ca_cert_der(&by.chain()[0], by.key())?)?;
    let chain =
        std::iter::once(leaf.into()).chain(by.chain().iter().cloned()).chain(appended.iter().cloned());
    Ok(Identity::new(chain.collect(), &key)?)
}

/// An authority of one's own that calls itself an intermediate under the root of a trust domain; its chain ends before
/// its own root.
///
/// # Errors
/// When it can not be made.
pub fn intermediate(domain: &TrustDomain) -> Result<Authority> {
    let validity = Validity::starting(clock::now(), LIFE);
    let root = Authority::root(domain, "Sealane federation root", validity)?;
    let key = PrivateKey::generate()?;
    let chain = root.certify_intermediate(key.public(), "Sealane federation server 1", validity)?;
    Ok(Authority::new(chain[..1].to_vec(), key)?)
}

/// An identity that its own authority issued, whose time was over a minute ago.
///
/// # Errors
/// When it can not be made.
pub fn expired(by: &Authority, id: &SpiffeId) -> Result<Identity> {
    let now = clock::now().0;
    let validity = Validity { not_before: Millis(now - 120_000), not_after: Millis(now - 60_000) };
    let key = PrivateKey::generate()?;
    let leaf = Leaf { spiffe_id: id.clone(), cluster_id: None, validity, dns_sans: Vec::new() };
    Ok(Identity::new(by.issue(key.public(), &leaf)?.chain, &key)?)
}

/// A signing certificate for a key that is no authority's: a leaf that took the right to sign upon itself.
///
/// # Errors
/// When it can not be made.
pub fn signing_leaf(holder: &Identity, key: &PrivateKey, domain: &TrustDomain) -> Result<Authority> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").as_str().try_into()?)];
    let own = PrivateKey::generate()?;
    let issuer = rcgen::Issuer::from_ca_cert_der(&holder.chain()[0], key)?;
    let certificate = params.signed_by(own.public(), &issuer)?;
    let chain = std::iter::once(certificate.into()).chain(holder.chain());
    Ok(Authority::new(chain.collect(), own)?)
}
