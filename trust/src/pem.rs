//! PEM, as far as certificates need it.

use data_encoding::BASE64;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The largest PEM text that is looked at: a full chain is far smaller.
pub const MAX_PEM: usize = 256 * 1024;

/// The most certificates that one PEM text may hold.
pub const MAX_CERTIFICATES: usize = 16;

/// A PEM text that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// The text is longer than [`MAX_PEM`].
    #[error("the PEM text is larger than 256 KiB")]
    TooLarge,
    /// The text holds more than [`MAX_CERTIFICATES`] certificates.
    #[error("the PEM text holds more than 16 certificates")]
    TooMany,
    /// The text holds none of what was looked for.
    #[error("the PEM text holds no {0}")]
    Missing(&'static str),
    /// A section is cut short or is not base64.
    #[error("the PEM text is damaged: {0}")]
    Damaged(String),
}

/// One section of PEM text.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// The certificates, in order, as PEM text.
#[must_use]
pub fn encode_certificates(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|c| encode("CERTIFICATE", c)).collect()
}

/// The certificates of a PEM text, in order; other sections are passed over.
///
/// # Errors
/// When the text is damaged, too large, or holds no certificate.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    if text.len() > MAX_PEM {
        return Err(PemError::TooLarge);
    }
    let mut out = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text) {
        out.push(certificate.map_err(|e| PemError::Damaged(e.to_string()))?);
        if out.len() > MAX_CERTIFICATES {
            return Err(PemError::TooMany);
        }
    }
    if out.is_empty() { Err(PemError::Missing("certificate")) } else { Ok(out) }
}
