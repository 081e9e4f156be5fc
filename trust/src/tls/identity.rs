//! Our own certificate, exchanged under running connections.

use crate::key::PrivateKey;
use crate::svid::{Svid, SvidError};
use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::sync::Arc;

/// A certificate that can not be ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The chain is empty.
    #[error("the certificate chain is empty")]
    Empty,
    /// The leaf is no SVID.
    #[error("our certificate is refused: {0}")]
    Svid(#[from] SvidError),
    /// The key is not the certificate's.
    #[error("the private key does not belong to the certificate")]
    WrongKey,
    /// The TLS library does not take the key.
    #[error("the private key is refused: {0}")]
    Key(String),
}

/// A certificate chain with its key. Clones share it: new handshakes present what the last
/// [`replace`](Identity::replace) set, and live connections stay.
#[derive(Clone)]
pub struct Identity(Arc<ArcSwap<Presented>>);

struct Presented {
    certified: Arc<CertifiedKey>,
    svid: Svid,
}

impl Presented {
    fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKey) -> Result<Self, IdentityError> {
        let svid = Svid::parse(chain.first().ok_or(IdentityError::Empty)?)?;
        if svid.leaf_spki_hash != key.public().hash() {
            return Err(IdentityError::WrongKey);
        }
        let signer = rustls::crypto::ring::sign::any_ecdsa_type(&key.to_rustls())
            .map_err(|e| IdentityError::Key(e.to_string()))?;
        Ok(Presented { certified: Arc::new(CertifiedKey::new(chain, signer)), svid })
    }
}

impl Identity {
    /// An identity of a chain (leaf first) and the leaf's key.
    ///
    /// # Errors
    /// When the leaf is no SVID or the key is not its own.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKey) -> Result<Self, IdentityError> {
        Ok(Identity(Arc::new(ArcSwap::from_pointee(Presented::new(chain, key)?))))
    }

    /// Exchanges the certificate for new handshakes.
    ///
    /// # Errors
    /// As [`Identity::new`]; the former one stays then.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKey,
    ) -> Result<(), IdentityError> {
        self.0.store(Arc::new(Presented::new(chain, key)?));
        Ok(())
    }

    /// What the certificate now presented says.
    #[must_use]
    pub fn current(&self) -> Svid {
        self.0.load().svid.clone()
    }

    /// The chain now presented.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.load().certified.cert.clone()
    }

    /// The chain and key now presented, for a resolver of one's own.
    #[must_use]
    pub fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.load().certified)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.0.load().svid).finish()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
