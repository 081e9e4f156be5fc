//! The certificates of an etcd cluster that asks its clients and its peers for theirs, as Sealane does.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An authority, one certificate for all members, and one for all clients: P-256, as Sealane's.
#[derive(Debug)]
pub(crate) struct Certificates {
    directory: PathBuf,
    client: Arc<ClientConfig>,
}

impl Certificates {
    /// Makes them, for members at these addresses, in a directory.
    ///
    /// # Errors
    /// When they can not be made or written.
    pub(crate) fn make(directory: &Path, members: &[Ipv4Addr]) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "etcd bench");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            std::fs::write(&path, text).with_context(|| format!("can not write {}", path.display()))
        };
        write("ca.pem", authority.pem())?;
        // A member checks where another comes from, which on loopback is this.
        let from = [Ipv4Addr::LOCALHOST];
        let member = leaf(&[members, &from].concat())?;
        let key = KeyPair::generate()?;
        write("member.pem", member.signed_by(&key, &authority)?.pem())?;
        write("member.key", key.serialize_pem())?;
        let key = KeyPair::generate()?;
        let certificate = leaf(&[])?.signed_by(&key, &authority)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        // This etcd takes nothing newer.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Certificates { directory: directory.to_owned(), client: Arc::new(client) })
    }

    /// TLS of a client.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// The options of a member that is to ask everyone for a certificate.
    pub(crate) fn options(&self) -> Vec<String> {
        let at = |name: &str| self.directory.join(name).to_string_lossy().into_owned();
        ["", "peer-"]
            .iter()
            .flat_map(|who| {
                [
                    format!("--{who}cert-file={}", at("member.pem")),
                    format!("--{who}key-file={}", at("member.key")),
                    format!("--{who}trusted-ca-file={}", at("ca.pem")),
                    format!("--{who}client-cert-auth=true"),
                ]
            })
            .collect()
    }
}

fn leaf(addresses: &[Ipv4Addr]) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.subject_alt_names = addresses.iter().map(|a| SanType::IpAddress(IpAddr::V4(*a))).collect();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name.push(DnType::CommonName, "etcd bench");
    Ok(params)
}
