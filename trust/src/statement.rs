//! Statements that a member signs by the key of its certificate, for whoever holds the roots of its trust domain.

use crate::bundle::Bundle;
use crate::tls::{Identity, IdentityError};
use crate::verify::{Expiry, Usage, Verified, VerifyError, verify_chain};
use rustls::SignatureScheme;
use rustls_pki_types::CertificateDer;
use sealane_core::time::Millis;

/// A statement with what proves who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What is said.
    pub statement: Vec<u8>,
    /// ECDSA on P-256 with SHA-256, as DER, over the purpose, a zero byte and the statement.
    pub signature: Vec<u8>,
    /// The certificate chain of who says it, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
}

/// A statement that proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The chain is refused.
    #[error(transparent)]
    Chain(#[from] VerifyError),
    /// The signature is not the leaf's, or of another statement or purpose.
    #[error("the signature does not belong to the statement")]
    Signature,
}

fn message(purpose: &str, statement: &[u8]) -> Vec<u8> {
    let mut message = purpose.as_bytes().to_vec();
    message.push(0);
    message.extend_from_slice(statement);
    message
}

impl Signed {
    /// Signs a statement. The purpose keeps it from being taken for one of another kind.
    ///
    /// # Errors
    /// When the key does not sign.
    pub fn new(identity: &Identity, purpose: &str, statement: Vec<u8>) -> Result<Self, IdentityError> {
        let certified = identity.certified();
        let signer = certified.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
        let signer = signer.ok_or_else(|| IdentityError::Key("it is not on the curve P-256".to_owned()))?;
        let signature = signer.sign(&message(purpose, &statement));
        let signature = signature.map_err(|e| IdentityError::Key(e.to_string()))?;
        Ok(Signed { statement, signature, chain: certified.cert.clone() })
    }

    /// Who says it, by a chain that leads to a root of the trust domain now.
    ///
    /// # Errors
    /// When the chain or the signature proves nothing.
    pub fn verify(&self, bundle: &Bundle, purpose: &str, now: Millis) -> Result<Verified, StatementError> {
        let verified = verify_chain(bundle, &self.chain, now, Usage::Server, Expiry::Strict)?;
        let leaf = self.chain.first().ok_or(VerifyError::Empty)?;
        let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|_| StatementError::Signature)?;
        let message = message(purpose, &self.statement);
        leaf.verify_signature(webpki::ring::ECDSA_P256_SHA256, &message, &self.signature)
            .map_err(|_| StatementError::Signature)?;
        Ok(verified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::fixture::Federation;

    #[test]
    fn a_statement_is_its_signers_for_its_purpose_and_as_it_stands() {
        let (federation, now) = (Federation::new(), clock::now());
        let signed = Signed::new(&federation.identity("server/1"), "test 1", b"so".to_vec()).unwrap();
        let verified = signed.verify(&federation.bundle(), "test 1", now).unwrap();
        assert_eq!(verified.spiffe_id.to_string(), "spiffe://fed.example/server/1");
        let signature = Err(StatementError::Signature);
        let changed = Signed { statement: b"otherwise".to_vec(), ..signed.clone() };
        assert_eq!(changed.verify(&federation.bundle(), "test 1", now), signature);
        assert_eq!(signed.verify(&federation.bundle(), "test 2", now), signature);
        let taken = Signed { chain: federation.identity("server/2").chain(), ..signed.clone() };
        assert_eq!(taken.verify(&federation.bundle(), "test 1", now), signature);
        let stranger = signed.verify(&Federation::new().bundle(), "test 1", now);
        assert_eq!(stranger, Err(StatementError::Chain(VerifyError::UnknownIssuer)));
        let unsigned = Signed { signature: Vec::new(), ..signed };
        assert_eq!(unsigned.verify(&federation.bundle(), "test 1", now), signature);
    }
}
