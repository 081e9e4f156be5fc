//! What an X.509-SVID says (X509-SVID sections 2 to 4), read but not verified.
//!
//! The id of a cluster stands in the certificate's subject as the attribute `serialNumber` (OID 2.5.4.5), in decimal.
//! It is there for agents only: the name of a removed cluster may be given again, its id never, so an old
//! certificate of the same name does not speak for the new cluster.

use crate::key::PublicKey;
use rustls_pki_types::CertificateDer;
use sealane_core::identity::{ClusterId, SpiffeId};
use sealane_core::name::TrustDomain;
use sealane_core::time::Millis;
use std::fmt;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_X509_SERIALNUMBER;
use x509_parser::prelude::FromDer;

/// The largest certificate that is looked at.
pub const MAX_CERTIFICATE: usize = 16 * 1024;

/// A certificate that is no SVID of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// It is larger than [`MAX_CERTIFICATE`].
    #[error("it is larger than 16 KiB")]
    TooLarge,
    /// It is no X.509 v3 certificate.
    #[error("it is not a well-formed certificate")]
    Malformed,
    /// It has no URI SAN or more than one.
    #[error("it has {0} URI SANs where an SVID has exactly one")]
    UriSans(usize),
    /// Its URI SAN is no SPIFFE ID.
    #[error("its URI SAN is not a SPIFFE ID: {0}")]
    NotSpiffe(sealane_core::name::NameError),
    /// It may sign certificates.
    #[error("it is a signing certificate")]
    Signing,
    /// It may not be used for signatures, so not for TLS 1.3.
    #[error("its key usage lacks digitalSignature")]
    NoDigitalSignature,
    /// Its key is not on P-256.
    #[error("its key is not on the curve P-256")]
    NotP256,
    /// Its subject's serialNumber is no cluster id.
    #[error("its subject's serialNumber is not a cluster id")]
    BadClusterId,
}

/// A certificate's serial number, as hexadecimal text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Box<str>);

impl Serial {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Serial(data_encoding::HEXLOWER.encode(bytes).into())
    }

    /// The number in lower-case hexadecimal digits, as in DER.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a leaf certificate claims. Only [`crate::verify::Verified`] proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    /// Who it speaks for.
    pub spiffe_id: SpiffeId,
    /// The cluster's id, in the certificate of a cluster's agent.
    pub cluster_id: Option<ClusterId>,
    /// The first instant at which it is valid.
    pub not_before: Millis,
    /// The last instant at which it is valid.
    pub not_after: Millis,
    /// Its serial number.
    pub serial: Serial,
    /// The SHA-256 of its SubjectPublicKeyInfo.
    pub leaf_spki_hash: [u8; 32],
}

impl Svid {
    /// Reads a leaf certificate: one URI SAN that is a SPIFFE ID, no signing certificate, a P-256 key that may sign.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(certificate: &CertificateDer<'_>) -> Result<Self, SvidError> {
        let certificate = x509(certificate)?;
        if certificate.is_ca() {
            return Err(SvidError::Signing);
        }
        let usage = certificate.key_usage().map_err(|_| SvidError::Malformed)?.map(|u| u.value);
        if usage.is_some_and(|u| u.key_cert_sign() || u.crl_sign()) {
            return Err(SvidError::Signing);
        }
        if !usage.is_some_and(|u| u.digital_signature()) {
            return Err(SvidError::NoDigitalSignature);
        }
        let key = PublicKey::from_der(certificate.public_key().raw).ok_or(SvidError::NotP256)?;
        Ok(Svid {
            spiffe_id: SpiffeId::parse(single_uri(&certificate)?).map_err(SvidError::NotSpiffe)?,
            cluster_id: cluster_id(&certificate)?,
            not_before: millis(certificate.validity().not_before),
            not_after: millis(certificate.validity().not_after),
            serial: Serial::of(certificate.raw_serial()),
            leaf_spki_hash: key.hash(),
        })
    }

    /// The instant at which half of the certificate's life is over: the time to renew it.
    #[must_use]
    pub fn half_life(&self) -> Millis {
        self.not_before.plus(self.not_after.since(self.not_before) / 2)
    }

    /// Whether the certificate's time is over.
    #[must_use]
    pub fn is_expired(&self, now: Millis) -> bool {
        now > self.not_after
    }
}

/// Parses one certificate, all of it.
pub(crate) fn x509<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, SvidError> {
    if certificate.len() > MAX_CERTIFICATE {
        return Err(SvidError::TooLarge);
    }
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(SvidError::Malformed),
    }
}

/// A certificate's validity bound in milliseconds; before 1970 reads as 1970.
pub(crate) fn millis(time: x509_parser::time::ASN1Time) -> Millis {
    Millis(u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000))
}

/// The only URI SAN, however many SANs of other kinds there are.
fn single_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, SvidError> {
    let sans = certificate.subject_alternative_name().map_err(|_| SvidError::Malformed)?;
    let names = sans.map(|s| s.value.general_names.as_slice()).unwrap_or_default();
    if names.iter().any(|n| matches!(n, GeneralName::Invalid(..))) {
        return Err(SvidError::Malformed);
    }
    let mut uris = names.iter().filter_map(|n| match n {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri),
        (first, more) => Err(SvidError::UriSans(usize::from(first.is_some()) + more)),
    }
}

fn cluster_id(certificate: &X509Certificate<'_>) -> Result<Option<ClusterId>, SvidError> {
    let mut attributes = certificate.subject().iter_by_oid(&OID_X509_SERIALNUMBER);
    let Some(attribute) = attributes.next() else { return Ok(None) };
    let text = attribute.as_str().map_err(|_| SvidError::BadClusterId)?;
    let id: u64 = text.parse().map_err(|_| SvidError::BadClusterId)?;
    // One number has one spelling, and one certificate one cluster.
    if attributes.next().is_some() || id.to_string() != text {
        return Err(SvidError::BadClusterId);
    }
    Ok(Some(ClusterId(id)))
}

/// The trust domain that a signing certificate claims by its only URI SAN, `spiffe://<trust domain>`.
pub(crate) fn signing_domain(certificate: &X509Certificate<'_>) -> Option<TrustDomain> {
    let uri = single_uri(certificate).ok()?;
    TrustDomain::parse(uri.strip_prefix("spiffe://")?).ok()
}
