//! Verification of a presented chain against the roots of one trust domain.
//!
//! Path building starts at the presented leaf and must end at a root of the [`Bundle`] that the caller trusts for the
//! expected trust domain. Whatever else the peer sends is only material for the path: a certificate that it appends
//! can never become an anchor.

use crate::bundle::Bundle;
use crate::clock;
use crate::svid::{MAX_CERTIFICATE, Svid, SvidError};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use sealane_core::name::TrustDomain;
use sealane_core::time::Millis;
use std::ops::Deref;
use std::time::Duration;

/// The longest chain that is looked at.
pub const MAX_CHAIN: usize = 6;

/// Signatures in a chain: ECDSA only.
const SIGNATURES: [&dyn SignatureVerificationAlgorithm; 4] = [
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
];

/// Which side of a connection the certificate speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The peer dialled us.
    Client,
    /// We dialled the peer.
    Server,
}

/// What is done with a certificate whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// It is refused.
    #[default]
    Strict,
    /// It is accepted for this long after, as it would have been at its last instant. Only for renewal:
    /// see [`crate::acceptor::Peer::Expired`].
    Grace(Duration),
}

/// A chain that was refused. Unless the text says otherwise the peer is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The peer sent no certificate.
    #[error("the peer sent no certificate")]
    Empty,
    /// The chain is longer than [`MAX_CHAIN`], or a certificate in it larger than 16 KiB.
    #[error("the peer's chain is longer than 6 certificates or a certificate in it larger than 16 KiB")]
    TooLarge,
    /// The leaf is no SVID.
    #[error("the peer's certificate is refused: {0}")]
    Svid(#[from] SvidError),
    /// The leaf's trust domain is not the expected one.
    #[error("the peer is of the trust domain {found}, and {expected} was expected")]
    WrongTrustDomain {
        /// Whose roots were asked for.
        expected: TrustDomain,
        /// Whose member the leaf claims to be.
        found: TrustDomain,
    },
    /// No path leads to a root of the trust domain.
    #[error("the peer's certificate is not signed by a root of its trust domain")]
    UnknownIssuer,
    /// The certificate, or one that signed it, is out of date.
    #[error("the peer's certificate expired: not valid after {not_after:?} (ms since 1970; now is {now:?})")]
    Expired {
        /// When it ended.
        not_after: Millis,
        /// The time of the check, by our clock.
        now: Millis,
    },
    /// The certificate, or one that signed it, is not valid yet. Either clock may be to blame.
    #[error(
        "the peer's certificate is not valid before {not_before:?} (ms since 1970; now is {now:?}): check both clocks"
    )]
    NotYetValid {
        /// When it begins.
        not_before: Millis,
        /// The time of the check, by our clock.
        now: Millis,
    },
    /// The certificate's extended key usage does not allow this side.
    #[error("the peer's certificate is not for this side of a connection")]
    WrongUsage,
    /// The identity is genuine, but not one that is accepted here.
    #[error("the peer is {0}, which is not accepted here")]
    WrongIdentity(sealane_core::identity::SpiffeId),
    /// No certificate of the chain is the pinned root.
    #[error("the peer's chain does not hold the root that the join token pins")]
    PinNotFound,
    /// The pinned root is no root of a trust domain. The token is to blame.
    #[error("the certificate that the join token pins is not the root of a trust domain")]
    BadPin,
    /// The chain is malformed or breaks another rule of path validation.
    #[error("the peer's chain is refused: {0}")]
    Path(String),
}

/// An SVID whose chain was verified to a root of its trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified(Svid);

impl Verified {
    /// For certificates that a verifier of ours let through a handshake.
    pub(crate) fn after_handshake(svid: Svid) -> Self {
        Verified(svid)
    }
}

impl Deref for Verified {
    type Target = Svid;
    fn deref(&self) -> &Svid {
        &self.0
    }
}

impl From<Verified> for Svid {
    fn from(verified: Verified) -> Svid {
        verified.0
    }
}

/// Verifies a presented chain (leaf first) to the roots of one trust domain.
///
/// # Errors
/// When the chain does not prove an SVID of that trust domain for this use at this time.
pub fn verify_chain(
    bundle: &Bundle,
    presented: &[CertificateDer<'_>],
    now: Millis,
    usage: Usage,
    expiry: Expiry,
) -> Result<Verified, VerifyError> {
    let (leaf, intermediates) = presented.split_first().ok_or(VerifyError::Empty)?;
    if presented.len() > MAX_CHAIN || presented.iter().any(|c| c.len() > MAX_CERTIFICATE) {
        return Err(VerifyError::TooLarge);
    }
    let svid = Svid::parse(leaf)?;
    if svid.spiffe_id.trust_domain() != bundle.trust_domain() {
        return Err(VerifyError::WrongTrustDomain {
            expected: bundle.trust_domain().clone(),
            found: svid.spiffe_id.trust_domain().clone(),
        });
    }
    let time = match expiry {
        Expiry::Grace(grace) if in_grace(&svid, now, grace) => svid.not_after,
        _ => now,
    };
    build_path(bundle, leaf, intermediates, time, usage).map_err(|e| refusal(e, now))?;
    Ok(Verified(svid))
}

fn in_grace(svid: &Svid, now: Millis, grace: Duration) -> bool {
    svid.is_expired(now) && now <= svid.not_after.plus(clock::millis(grace))
}

fn build_path(
    bundle: &Bundle,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    time: Millis,
    usage: Usage,
) -> Result<(), webpki::Error> {
    let usage = match usage {
        Usage::Client => webpki::KeyUsage::client_auth(),
        Usage::Server => webpki::KeyUsage::server_auth(),
    };
    let time = UnixTime::since_unix_epoch(Duration::from_millis(time.0));
    let leaf = webpki::EndEntityCert::try_from(leaf)?;
    leaf.verify_for_usage(&SIGNATURES, bundle.anchors(), intermediates, time, usage, None, None)?;
    Ok(())
}

fn refusal(error: webpki::Error, now: Millis) -> VerifyError {
    let millis = |t: UnixTime| Millis(t.as_secs().saturating_mul(1000));
    match error {
        webpki::Error::CertExpired { not_after, .. } => {
            VerifyError::Expired { not_after: millis(not_after), now }
        }
        webpki::Error::CertNotValidYet { not_before, .. } => {
            VerifyError::NotYetValid { not_before: millis(not_before), now }
        }
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            VerifyError::UnknownIssuer
        }
        webpki::Error::CaUsedAsEndEntity => VerifyError::Svid(SvidError::Signing),
        webpki::Error::RequiredEkuNotFoundContext(_) => VerifyError::WrongUsage,
        other => VerifyError::Path(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
