//! The certificates of one cluster: an authority of its own, and what it signs, as PEM files in one folder.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Whoever has a certificate of this organization may do everything.
pub const MASTERS: &str = "system:masters";
/// That of the nodes' kubelets.
pub const NODES: &str = "system:nodes";

/// Who a certificate is for.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The user's name, or the server's.
    pub name: &'a str,
    /// The group; empty for none.
    pub group: &'a str,
    /// Names and addresses under which it is reached; none for a client.
    pub reached: &'a [String],
}

/// A cluster's authority, and the folder of its files.
#[derive(Debug)]
pub struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes an authority (`ca.pem`, `ca.key`) and the pair that signs ServiceAccount tokens (`sa.pub`, `sa.key`).
    ///
    /// # Errors
    /// When a file can not be written.
    pub fn create(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("can not make {}", folder.display()))?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished("kubernetes", "");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        write(&folder.join("ca.pem"), &params.self_signed(&key)?.pem())?;
        write(&folder.join("ca.key"), &key.serialize_pem())?;
        let accounts = KeyPair::generate()?;
        write(&folder.join("sa.pub"), &accounts.public_key_pem())?;
        write(&folder.join("sa.key"), &accounts.serialize_pem())?;
        Ok(Pki { folder: folder.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// Opens one that was made before.
    ///
    /// # Errors
    /// When its files can not be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).with_context(|| name.to_owned());
        let issuer = Issuer::from_ca_cert_pem(&read("ca.pem")?, KeyPair::from_pem(&read("ca.key")?)?)?;
        Ok(Pki { folder: folder.to_owned(), issuer })
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Signs a certificate and writes it and its key: `<file>.pem`, `<file>.key`.
    ///
    /// # Errors
    /// When a name is refused, or a file can not be written.
    pub fn issue(&self, file: &str, subject: Subject<'_>) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(subject.reached)?;
        params.distinguished_name = distinguished(subject.name, subject.group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !subject.reached.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let certificate = params.signed_by(&key, &self.issuer)?;
        write(&self.folder.join(file).with_extension("pem"), &certificate.pem())?;
        write(&self.folder.join(file).with_extension("key"), &key.serialize_pem())
    }
}

fn distinguished(name: &str, group: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    if !group.is_empty() {
        distinguished.push(DnType::OrganizationName, group);
    }
    distinguished
}

fn write(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("can not write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_that_is_opened_again_signs_under_the_same_name() {
        let folder = tempfile::tempdir().unwrap();
        Pki::create(folder.path()).unwrap();
        let reached = ["127.0.0.1".to_owned(), "kubernetes.default.svc".to_owned()];
        let server = Subject { name: "kube-apiserver", group: "", reached: &reached };
        Pki::open(folder.path()).unwrap().issue("server", server).unwrap();
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        let root = sealane_trust::pem::certificates(&read("ca.pem")).unwrap();
        let leaf = sealane_trust::pem::certificates(&read("server.pem")).unwrap();
        let (_, root) = x509(&root[0]);
        let (_, leaf) = x509(&leaf[0]);
        assert_eq!(leaf.issuer(), root.subject());
        leaf.verify_signature(Some(root.public_key())).unwrap();
    }

    fn x509<'a>(der: &'a [u8]) -> (&'a [u8], x509_parser::certificate::X509Certificate<'a>) {
        x509_parser::parse_x509_certificate(der).unwrap()
    }
}
