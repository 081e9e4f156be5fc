//! P-256 keys.

use crate::file::{self, Access, FileError};
use crate::pem;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The largest key file that is read.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// A SubjectPublicKeyInfo of P-256 up to its uncompressed point: SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 },
/// BIT STRING }. DER leaves no other way to write it.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A key that could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The bytes are no PKCS #8 private key on P-256.
    #[error("not a PKCS #8 private key on the curve P-256")]
    NotP256,
    /// The text holds no usable PEM section.
    #[error(transparent)]
    Pem(#[from] pem::PemError),
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] crate::RandomError),
}

/// A public key on P-256, as DER (SubjectPublicKeyInfo).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 91]);

impl PublicKey {
    /// Takes a SubjectPublicKeyInfo if it holds a P-256 key, or returns `None`.
    #[must_use]
    pub fn from_der(spki: &[u8]) -> Option<Self> {
        let der: [u8; 91] = spki.try_into().ok()?;
        (der.starts_with(&P256_PREFIX) && der[P256_PREFIX.len()] == 4).then_some(PublicKey(der))
    }

    /// The SubjectPublicKeyInfo.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// The SHA-256 of the SubjectPublicKeyInfo.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        crate::sha256(&self.0)
    }

    /// The uncompressed point.
    pub(crate) fn point(&self) -> &[u8] {
        &self.0[P256_PREFIX.len()..]
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey(sha256 {})", data_encoding::HEXLOWER.encode(&self.hash()))
    }
}

impl rcgen::PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        self.point()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// A private key on P-256. Its bytes are wiped when the last clone goes; it never prints.
#[derive(Clone)]
pub struct PrivateKey {
    pkcs8: Arc<Zeroizing<Vec<u8>>>,
    public: PublicKey,
}

impl PrivateKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &ring::rand::SystemRandom::new())
                .map_err(|_| crate::RandomError)?;
        PrivateKey::from_pkcs8_der(document.as_ref())
    }

    /// Takes a PKCS #8 document.
    ///
    /// # Errors
    /// When it is no private key on P-256.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        let pair = key_pair(der)?;
        let mut spki = P256_PREFIX.to_vec();
        spki.extend_from_slice(pair.public_key().as_ref());
        let public = PublicKey::from_der(&spki).ok_or(KeyError::NotP256)?;
        Ok(PrivateKey { pkcs8: Arc::new(Zeroizing::new(der.to_vec())), public })
    }

    /// Takes the first `PRIVATE KEY` section of a PEM text.
    ///
    /// # Errors
    /// When there is none or it is no private key on P-256.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        match PrivatePkcs8KeyDer::from_pem_slice(text) {
            Ok(der) => PrivateKey::from_pkcs8_der(der.secret_pkcs8_der()),
            Err(_) => Err(pem::PemError::Missing("PKCS #8 private key").into()),
        }
    }

    /// The PKCS #8 document.
    #[must_use]
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.pkcs8.to_vec())
    }

    /// The key as a `PRIVATE KEY` section.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::encode("PRIVATE KEY", &self.pkcs8))
    }

    /// Writes the key to a file of mode 0600, whole or not at all.
    ///
    /// # Errors
    /// When the file can not be written.
    pub fn write_file(&self, path: &Path) -> Result<(), KeyError> {
        Ok(file::write(path, self.to_pem().as_bytes(), Access::Private)?)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// When the file can be read by others than its owner, or holds no private key on P-256.
    pub fn read_file(path: &Path) -> Result<Self, KeyError> {
        PrivateKey::from_pem(&file::read_private(path, MAX_KEY_FILE)?)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key as rustls takes it.
    pub(crate) fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()))
    }
}

fn key_pair(pkcs8: &[u8]) -> Result<EcdsaKeyPair, KeyError> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &ring::rand::SystemRandom::new())
        .map_err(|_| KeyError::NotP256)
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {:?})", self.public)
    }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.public.point()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let pair = key_pair(&self.pkcs8).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        let signature = pair
            .sign(&ring::rand::SystemRandom::new(), message)
            .map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_survives_its_file_and_prints_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        let key = PrivateKey::generate().unwrap();
        key.write_file(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = PrivateKey::read_file(&path).unwrap();
        assert_eq!(*read.to_pkcs8_der(), *key.to_pkcs8_der());
        assert_eq!(format!("{key:?}"), format!("PrivateKey(of {:?})", key.public()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        PrivateKey::generate().unwrap().write_file(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refusal = PrivateKey::read_file(&path).unwrap_err();
        assert!(matches!(refusal, KeyError::File(FileError::Exposed { mode: 0o640, .. })), "{refusal}");
    }

    #[test]
    fn a_key_of_another_curve_is_refused() {
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert!(matches!(PrivateKey::from_pem(other.serialize_pem().as_bytes()), Err(KeyError::NotP256)));
        assert!(
            PublicKey::from_der(rcgen::PublicKeyData::subject_public_key_info(&other).as_slice()).is_none()
        );
    }
}
