//! The keys and certificates of a server, in DIR/pki: the federation's root (its key only where it was made), this
//! server's own issuer under it, and the leaf that it presents.
//!
//! Law: a key file is 0600 and never leaves the machine; nothing of this is in the replicated state.

use sealane_core::identity::{ClusterId, Principal, ServerId, SpiffeId};
use sealane_core::name::{ClusterName, ServiceAccount, TrustDomain};
use sealane_core::time::Millis;
use sealane_trust::CertificateDer;
use sealane_trust::bundle::{Bundle, BundleError, RootHash};
use sealane_trust::clock;
use sealane_trust::file::{self, Access, FileError};
use sealane_trust::issue::{Authority, IssueError, Issued, Leaf, Validity};
use sealane_trust::key::{KeyError, PrivateKey, PublicKey};
use sealane_trust::pem::{self, PemError};
use sealane_trust::tls::{Identity, IdentityError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the root of a federation is valid.
pub const ROOT_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a server's issuer is valid.
pub const ISSUER_VALIDITY: Duration = Duration::from_secs(5 * 365 * 24 * 3600);
/// How long the certificates of agents and servers are valid at most; renewed at half of it.
pub const MEMBER_VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an administrator's certificate is valid.
pub const ADMIN_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long after its expiry an agent's certificate still opens Renew.
pub const RENEW_GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The largest file of keys or certificates.
pub const MAX_FILE: u64 = 256 * 1024;

/// Why keys and certificates could not be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A directory.
    #[error("can not make {path}: {source}", path = .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// The system's complaint.
        source: std::io::Error,
    },
    /// A key.
    #[error("{path}: {source}", path = .path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// A certificate file.
    #[error("{path}: {source}", path = .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PemError,
    },
    /// An authority.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The root.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Our own certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The issuer was signed by another root than the one beside it.
    #[error("the issuer in {dir} does not descend from the root beside it", dir = .0.display())]
    ForeignIssuer(PathBuf),
    /// A certificate to be renewed is no administrator's.
    #[error("{path} is no administrator's certificate of this federation", path = .0.display())]
    NoAdmin(PathBuf),
}

/// What a server holds.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    /// The federation's roots.
    pub bundle: Bundle,
    /// The root with its key, where the federation was made.
    pub root: Option<Authority>,
    /// This server's issuer.
    pub issuer: Authority,
    /// What this server presents. Exchanged in place when it is renewed.
    pub identity: Identity,
    /// How long what it issues to agents and to itself is valid.
    pub ttl: Duration,
    id: ServerId,
}

impl Pki {
    /// Makes a root and the first server's issuer and leaf.
    ///
    /// # Errors
    /// When a file can not be written.
    pub fn found(dir: &Path, trust_domain: &TrustDomain, id: ServerId) -> Result<Self, PkiError> {
        let dir = make_dir(dir)?;
        let now = clock::now();
        let root =
            Authority::root(trust_domain, "Sealane federation root", Validity::starting(now, ROOT_VALIDITY))?;
        write_key(&dir.join("root.key"), root.key())?;
        let issuer =
            root.intermediate(new_key(&dir)?, &issuer_name(id), Validity::starting(now, ISSUER_VALIDITY))?;
        store_issuer(&dir, &issuer)?;
        Self::load_from(dir, id)
    }

    /// Keeps the issuer that the root's holder signed, and makes this server's leaf.
    ///
    /// # Errors
    /// When the chain is not an issuer's, or a file can not be written.
    pub fn join(
        dir: &Path,
        key: PrivateKey,
        chain: Vec<CertificateDer<'static>>,
        id: ServerId,
    ) -> Result<Self, PkiError> {
        let dir = make_dir(dir)?;
        store_issuer(&dir, &Authority::new(chain, key)?)?;
        Self::load_from(dir, id)
    }

    /// Reads what `found` or `join` wrote; a leaf that is missing or past half of its life is made anew.
    ///
    /// # Errors
    /// When a file is missing, damaged or open to others.
    pub fn load(dir: &Path, id: ServerId) -> Result<Self, PkiError> {
        Self::load_from(dir.join("pki"), id)
    }

    fn load_from(dir: PathBuf, id: ServerId) -> Result<Self, PkiError> {
        let roots = read_certificates(&dir.join("root.pem"))?;
        let key = read_key(&dir.join("issuer.key"))?;
        let issuer = Authority::new(read_certificates(&dir.join("issuer.pem"))?, key)?;
        if !roots.contains(issuer.root_certificate()) {
            return Err(PkiError::ForeignIssuer(dir));
        }
        let root_key = dir.join("root.key");
        let root = match root_key.exists() {
            true => Some(Authority::new(roots.clone(), read_key(&root_key)?)?),
            false => None,
        };
        let bundle = Bundle::new(issuer.trust_domain().clone(), roots)?;
        let ttl = MEMBER_VALIDITY;
        let (chain, key) = server_leaf(&issuer, id, ttl)?;
        let identity = Identity::new(chain, &key)?;
        Ok(Pki { dir, bundle, root, issuer, identity, ttl, id })
    }

    /// The same, issuing for another time than the longest, also to itself.
    ///
    /// # Errors
    /// When the issuer's own time is over.
    pub fn issuing_for(mut self, ttl: Duration) -> Result<Self, PkiError> {
        self.ttl = ttl;
        let (chain, key) = server_leaf(&self.issuer, self.id, ttl)?;
        self.identity.replace(chain, &key)?;
        Ok(self)
    }

    /// What a join token pins.
    #[must_use]
    pub fn root_hash(&self) -> RootHash {
        RootHash::of(self.issuer.root_certificate())
    }

    /// The roots as DER.
    #[must_use]
    pub fn roots(&self) -> Vec<Vec<u8>> {
        vec![self.issuer.root_certificate().to_vec()]
    }

    /// Exchanges this server's leaf once half of its life is over; says whether it did.
    ///
    /// # Errors
    /// When the issuer's own time is over.
    pub fn renew(&self, now: Millis) -> Result<bool, PkiError> {
        if now < self.identity.current().half_life() {
            return Ok(false);
        }
        let (chain, key) = server_leaf(&self.issuer, self.id, self.ttl)?;
        self.identity.replace(chain, &key)?;
        Ok(true)
    }

    /// Issues a certificate to a cluster's agent.
    ///
    /// # Errors
    /// When the issuer's own time is over.
    pub fn issue_agent(
        &self,
        key: &PublicKey,
        cluster: (ClusterId, &ClusterName),
        validity: Validity,
    ) -> Result<Issued, IssueError> {
        let spiffe_id = SpiffeId::agent(self.issuer.trust_domain(), cluster.1);
        self.issuer
            .issue(key, &Leaf { spiffe_id, cluster_id: Some(cluster.0), validity, dns_sans: Vec::new() })
    }

    /// Signs the issuer of another server; `None` when the root's key is not here.
    ///
    /// # Errors
    /// When the root's own time is over.
    pub fn certify_server(
        &self,
        key: &PublicKey,
        id: ServerId,
    ) -> Option<Result<Vec<CertificateDer<'static>>, IssueError>> {
        let validity = Validity::starting(clock::now(), ISSUER_VALIDITY);
        self.root.as_ref().map(|root| root.certify_intermediate(key, &issuer_name(id), validity))
    }

    /// Writes an administrator's certificate, key and the roots into a directory.
    ///
    /// # Errors
    /// When a file can not be written.
    pub fn write_admin(&self, out: &Path, name: &ServiceAccount) -> Result<(), PkiError> {
        write_admin(&self.issuer, out, name)
    }

    /// Exchanges an administrator's certificate, in the directory that [`Pki::write_admin`] or the chart's `enter` made, once
    /// half of its life is over; says whether it did. Its key stays, so that one file changes and no reader finds two halves.
    ///
    /// # Errors
    /// When the directory holds no administrator's certificate, or it can not be written.
    pub fn renew_admin(&self, context: &Path, now: Millis) -> Result<bool, PkiError> {
        let path = context.join("identity.pem");
        let key = read_key(&context.join("identity.key"))?;
        let svid = Identity::new(read_certificates(&path)?, &key)?.current();
        if now < svid.half_life() {
            return Ok(false);
        }
        let domain = self.issuer.trust_domain();
        let Some(Principal::Admin(name)) = svid.spiffe_id.principal(domain) else {
            return Err(PkiError::NoAdmin(path));
        };
        let issued = self.issuer.issue(key.public(), &admin_leaf(&self.issuer, &name, now))?;
        file::write(&path, issued.chain_pem().as_bytes(), Access::Public)?;
        Ok(true)
    }

    /// Where the files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Writes an administrator's certificate, key and the roots into a directory.
///
/// # Errors
/// When the issuer's own time is over, or a file can not be written.
pub fn write_admin(issuer: &Authority, out: &Path, name: &ServiceAccount) -> Result<(), PkiError> {
    let key = new_key(out)?;
    let issued = issuer.issue(key.public(), &admin_leaf(issuer, name, clock::now()))?;
    write_key(&out.join("identity.key"), &key)?;
    file::write(&out.join("identity.pem"), issued.chain_pem().as_bytes(), Access::Public)?;
    let roots = pem::encode_certificates(&[issuer.root_certificate().clone()]);
    Ok(file::write(&out.join("roots.pem"), roots.as_bytes(), Access::Public)?)
}

fn admin_leaf(issuer: &Authority, name: &ServiceAccount, now: Millis) -> Leaf {
    let spiffe_id = SpiffeId::admin(issuer.trust_domain(), name);
    let validity = Validity::starting(now, ADMIN_VALIDITY);
    Leaf { spiffe_id, cluster_id: None, validity, dns_sans: Vec::new() }
}

/// How often a server looks at least whether its leaf is due: the wall clock may be set meanwhile.
pub const LOOK: Duration = Duration::from_secs(3600);
/// The least time between two renewals, whatever the certificates say.
pub const LEAST_BETWEEN: Duration = Duration::from_millis(500);

fn issuer_name(id: ServerId) -> String {
    format!("Sealane federation server {id}")
}

fn server_leaf(
    issuer: &Authority,
    id: ServerId,
    ttl: Duration,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKey), PkiError> {
    let key = new_key(Path::new("server.key"))?;
    let spiffe_id = SpiffeId::server(issuer.trust_domain(), id);
    let validity = Validity::starting(clock::now(), ttl);
    let issued =
        issuer.issue(key.public(), &Leaf { spiffe_id, cluster_id: None, validity, dns_sans: Vec::new() })?;
    Ok((issued.chain, key))
}

fn make_dir(dir: &Path) -> Result<PathBuf, PkiError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = dir.join("pki");
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|source| PkiError::Directory { path: path.clone(), source })?;
    Ok(path)
}

fn store_issuer(dir: &Path, issuer: &Authority) -> Result<(), PkiError> {
    write_key(&dir.join("issuer.key"), issuer.key())?;
    file::write(&dir.join("issuer.pem"), issuer.chain_pem().as_bytes(), Access::Public)?;
    let roots = pem::encode_certificates(&[issuer.root_certificate().clone()]);
    Ok(file::write(&dir.join("root.pem"), roots.as_bytes(), Access::Public)?)
}

fn new_key(path: &Path) -> Result<PrivateKey, PkiError> {
    PrivateKey::generate().map_err(|source| PkiError::Key { path: path.to_owned(), source })
}

fn write_key(path: &Path, key: &PrivateKey) -> Result<(), PkiError> {
    key.write_file(path).map_err(|source| PkiError::Key { path: path.to_owned(), source })
}

fn read_key(path: &Path) -> Result<PrivateKey, PkiError> {
    PrivateKey::read_file(path).map_err(|source| PkiError::Key { path: path.to_owned(), source })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let text = file::read(path, MAX_FILE)?;
    pem::certificates(&text).map_err(|source| PkiError::Pem { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealane_trust::csr::Csr;
    use sealane_trust::verify::{Expiry, Usage, verify_chain};
    use std::os::unix::fs::PermissionsExt;

    fn domain() -> TrustDomain {
        TrustDomain::parse("fed.test").unwrap()
    }

    #[test]
    fn what_was_founded_is_loaded_and_its_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let made = Pki::found(dir.path(), &domain(), ServerId(1)).unwrap();
        let loaded = Pki::load(dir.path(), ServerId(1)).unwrap();
        assert_eq!(loaded.root_hash(), made.root_hash());
        assert_eq!(loaded.identity.current().spiffe_id.to_string(), "spiffe://fed.test/server/1");
        for key in ["root.key", "issuer.key"] {
            let mode = std::fs::metadata(made.dir().join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn a_joined_server_issues_under_the_same_root_and_can_not_admit_servers() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let founder = Pki::found(first.path(), &domain(), ServerId(1)).unwrap();
        let key = PrivateKey::generate().unwrap();
        let chain = founder.certify_server(key.public(), ServerId(2)).unwrap().unwrap();
        let joined = Pki::join(second.path(), key, chain, ServerId(2)).unwrap();
        let name = ClusterName::parse("east").unwrap();
        let csr = Csr::create(&PrivateKey::generate().unwrap()).unwrap();
        let validity = Validity::starting(clock::now(), MEMBER_VALIDITY);
        let agent = joined.issue_agent(csr.public_key(), (ClusterId(7), &name), validity).unwrap();
        let verified =
            verify_chain(&founder.bundle, &agent.chain, clock::now(), Usage::Client, Expiry::Strict).unwrap();
        assert_eq!(verified.spiffe_id.to_string(), "spiffe://fed.test/agent/east");
        assert_eq!(verified.cluster_id, Some(ClusterId(7)));
        assert!(joined.certify_server(csr.public_key(), ServerId(3)).is_none());
    }

    #[test]
    fn an_issuer_of_another_root_is_refused() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Pki::found(a.path(), &domain(), ServerId(1)).unwrap();
        Pki::found(b.path(), &domain(), ServerId(1)).unwrap();
        std::fs::copy(a.path().join("pki/root.pem"), b.path().join("pki/root.pem")).unwrap();
        assert!(matches!(Pki::load(b.path(), ServerId(1)), Err(PkiError::ForeignIssuer(_))));
    }

    #[test]
    fn a_leaf_is_exchanged_at_half_of_its_life() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::found(dir.path(), &domain(), ServerId(1)).unwrap();
        let before = pki.identity.current();
        assert!(!pki.renew(clock::now()).unwrap());
        assert!(pki.renew(before.half_life()).unwrap());
        assert_ne!(pki.identity.current().serial, before.serial);
    }

    #[test]
    fn an_administrators_certificate_is_exchanged_at_half_of_its_life_and_its_key_stays() {
        let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pki = Pki::found(dir.path(), &domain(), ServerId(1)).unwrap();
        let name = ServiceAccount::parse("kubernetes").unwrap();
        // By the root, as `sealane kubernetes enter` does it.
        write_admin(pki.root.as_ref().unwrap(), out.path(), &name).unwrap();
        let read = || {
            let certificates = read_certificates(&out.path().join("identity.pem")).unwrap();
            Identity::new(certificates, &read_key(&out.path().join("identity.key")).unwrap())
                .unwrap()
                .current()
        };
        let before = read();
        assert!(!pki.renew_admin(out.path(), clock::now()).unwrap());
        assert_eq!(read(), before);
        assert!(pki.renew_admin(out.path(), before.half_life()).unwrap());
        let after = read();
        assert_eq!(after.spiffe_id, before.spiffe_id);
        assert_ne!(after.serial, before.serial);
        assert!(after.not_after >= before.half_life().plus(80 * 86_400_000), "{after:?}");

        std::fs::remove_file(out.path().join("identity.pem")).unwrap();
        assert!(pki.renew_admin(out.path(), clock::now()).is_err());
    }
}
