//! Bundles: the roots of one trust domain, and nobody else's.

use crate::svid;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use sealane_core::name::{NameError, TrustDomain};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most roots that a bundle may hold.
pub const MAX_ROOTS: usize = 8;

/// The SHA-256 of a root certificate's DER: what a join token pins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootHash(pub [u8; 32]);

impl RootHash {
    /// The hash of a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        RootHash(crate::sha256(certificate))
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for RootHash {
    type Err = NameError;
    /// Parses 64 lower-case hexadecimal digits.
    fn from_str(s: &str) -> Result<Self, NameError> {
        let bytes = data_encoding::HEXLOWER.decode(s.as_bytes()).ok();
        bytes.and_then(|b| b.try_into().ok()).map(RootHash).ok_or_else(|| NameError {
            kind: "root hash",
            input: s.chars().take(80).collect(),
            rule: "must be 64 lower-case hexadecimal digits",
        })
    }
}

/// A set of roots that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// There are none, or more than [`MAX_ROOTS`].
    #[error("a bundle of {0} roots: it must have 1 to 8")]
    Count(usize),
    /// One of them is no certificate.
    #[error("root {0} of the bundle is not a well-formed certificate of at most 16 KiB")]
    Malformed(usize),
    /// One of them may not sign certificates.
    #[error("root {0} of the bundle is not a signing certificate (CA with keyCertSign)")]
    NotSigning(usize),
}

/// The roots of one trust domain. Cheap to clone.
///
/// A root is trusted because it is here: its own expiry is not looked at (X509-SVID section 5; a bundle's owner
/// withdraws a root by publishing a bundle without it).
#[derive(Clone)]
pub struct Bundle(Arc<Inner>);

struct Inner {
    trust_domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Bundle {
    /// Makes a bundle of 1 to 8 signing certificates.
    ///
    /// # Errors
    /// When there are none or too many, or one of them is no signing certificate.
    pub fn new(trust_domain: TrustDomain, roots: Vec<CertificateDer<'static>>) -> Result<Self, BundleError> {
        if roots.is_empty() || roots.len() > MAX_ROOTS {
            return Err(BundleError::Count(roots.len()));
        }
        let mut anchors = Vec::with_capacity(roots.len());
        for (at, root) in roots.iter().enumerate() {
            let parsed = svid::x509(root).map_err(|_| BundleError::Malformed(at))?;
            let usage = parsed.key_usage().map_err(|_| BundleError::Malformed(at))?;
            if !parsed.is_ca() || !usage.is_some_and(|u| u.value.key_cert_sign()) {
                return Err(BundleError::NotSigning(at));
            }
            let anchor = webpki::anchor_from_trusted_cert(root).map_err(|_| BundleError::Malformed(at))?;
            anchors.push(anchor.to_owned());
        }
        Ok(Bundle(Arc::new(Inner { trust_domain, roots, anchors })))
    }

    /// The trust domain whose roots these are.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// The roots.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.0.roots
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.0.anchors
    }
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        (&self.0.trust_domain, &self.0.roots) == (&other.0.trust_domain, &other.0.roots)
    }
}

impl Eq for Bundle {}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hashes: Vec<RootHash> = self.0.roots.iter().map(RootHash::of).collect();
        f.debug_struct("Bundle").field("trust_domain", &self.0.trust_domain).field("roots", &hashes).finish()
    }
}
