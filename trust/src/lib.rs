//! Keys, certificates and SPIFFE verification, and the TLS channels made of them.
//!
//! Law: identity is a SPIFFE ID in a certificate that verifies to the roots of its own trust domain, never a host
//! name; every key is P-256, every channel TLS 1.3 without resumption; whatever a stranger can make us hold is
//! bounded. Who may do what is not decided here: a [`tls::PeerPolicy`] or the caller does that.

pub mod acceptor;
pub mod bundle;
pub mod clock;
pub mod csr;
pub mod file;
#[cfg(test)]
mod fixture;
pub mod grpc;
pub mod issue;
pub mod join;
pub mod key;
pub mod oidc;
pub mod pem;
pub mod revocation;
pub mod statement;
pub mod svid;
pub mod tls;
pub mod verify;

pub use rustls;
pub use rustls_pki_types::CertificateDer;

/// The SHA-256 digest of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0u8; 32];
    out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    out
}

/// The authentication code of some bytes under a key: HMAC with SHA-256.
#[must_use]
pub fn hmac_sha256(key: &[u8], bytes: &[u8]) -> [u8; 32] {
    let mut out = [0u8; 32];
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    out.copy_from_slice(ring::hmac::sign(&key, bytes).as_ref());
    out
}

/// Whether this is the authentication code of some bytes under a key, found out in a time that says nothing of it.
#[must_use]
pub fn is_hmac_sha256(key: &[u8], bytes: &[u8], code: &[u8]) -> bool {
    ring::hmac::verify(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), bytes, code).is_ok()
}

/// Fills an array with random bytes from the operating system.
///
/// # Errors
/// When the operating system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut out = [0u8; N];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut out).map_err(|_| RandomError)?;
    Ok(out)
}

/// The operating system's random source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct RandomError;
