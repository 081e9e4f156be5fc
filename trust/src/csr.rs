//! Certificate signing requests: proof that the asker holds a key, and nothing else.
//!
//! What a request asks for (subject, SANs, usages) is ignored: the issuer decides who the key speaks for.

use crate::key::{PrivateKey, PublicKey};
use crate::pem;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::FromDer;

/// The largest request that is looked at.
pub const MAX_CSR: usize = 8 * 1024;

/// A request that was refused or could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It is longer than [`MAX_CSR`].
    #[error("the certificate request is larger than 8 KiB")]
    TooLarge,
    /// It is no PKCS #10 request.
    #[error("not a PKCS #10 certificate request")]
    Malformed,
    /// Its key is not on P-256.
    #[error("the certificate request's key is not on the curve P-256")]
    NotP256,
    /// It was not signed by its own key.
    #[error("the certificate request is not signed by its own key")]
    BadSignature,
    /// Our own key did not sign.
    #[error("can not sign the certificate request: {0}")]
    Sign(String),
}

/// A request whose signature by its own key was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    der: Vec<u8>,
    key: PublicKey,
}

impl Csr {
    /// Makes a request for a key.
    ///
    /// # Errors
    /// When the key does not sign.
    pub fn create(key: &PrivateKey) -> Result<Self, CsrError> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(key).map_err(|e| CsrError::Sign(e.to_string()))?;
        Ok(Csr { der: request.der().to_vec(), key: *key.public() })
    }

    /// Parses a request in DER or PEM and checks its signature.
    ///
    /// # Errors
    /// When it is too large, malformed, not on P-256 or not signed by its own key.
    pub fn parse(bytes: &[u8]) -> Result<Self, CsrError> {
        if bytes.len() > MAX_CSR {
            return Err(CsrError::TooLarge);
        }
        if bytes.starts_with(b"-----BEGIN") {
            use rustls_pki_types::pem::PemObject;
            let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(bytes)
                .map_err(|_| CsrError::Malformed)?;
            return Csr::parse_der(&der);
        }
        Csr::parse_der(bytes)
    }

    fn parse_der(der: &[u8]) -> Result<Self, CsrError> {
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let info = &request.certification_request_info;
        let key = PublicKey::from_der(info.subject_pki.raw).ok_or(CsrError::NotP256)?;
        if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
            return Err(CsrError::BadSignature);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.point())
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| CsrError::BadSignature)?;
        Ok(Csr { der: der.to_vec(), key })
    }

    /// The request as DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The request as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode("CERTIFICATE REQUEST", &self.der)
    }

    /// The key that the request is for.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// The SHA-256 of the key's SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key_hash(&self) -> [u8; 32] {
        self.key.hash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_parses_as_it_was_made() {
        let key = PrivateKey::generate().unwrap();
        let made = Csr::create(&key).unwrap();
        assert_eq!(Csr::parse(made.der()).unwrap(), made);
        assert_eq!(Csr::parse(made.pem().as_bytes()).unwrap(), made);
        assert_eq!(made.public_key_hash(), key.public().hash());
    }

    #[test]
    fn a_request_of_someone_elses_key_is_refused() {
        let made = Csr::create(&PrivateKey::generate().unwrap()).unwrap();
        let other = Csr::create(&PrivateKey::generate().unwrap()).unwrap();
        let mut forged = made.der.clone();
        let at = forged.windows(65).position(|w| w == made.key.point()).unwrap();
        forged[at..at + 65].copy_from_slice(other.key.point());
        assert_eq!(Csr::parse(&forged), Err(CsrError::BadSignature));
    }

    #[test]
    fn bounds_and_garbage_are_refused() {
        assert_eq!(Csr::parse(&[0u8; MAX_CSR + 1]), Err(CsrError::TooLarge));
        assert_eq!(Csr::parse(b"nonsense"), Err(CsrError::Malformed));
        let mut trailing = Csr::create(&PrivateKey::generate().unwrap()).unwrap().der;
        trailing.push(0);
        assert_eq!(Csr::parse(&trailing), Err(CsrError::Malformed));
        let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&ed).unwrap();
        assert_eq!(Csr::parse(request.der()), Err(CsrError::NotP256));
    }
}
