//! rustls' verifiers around a [`PeerPolicy`]. The host name that was dialled is not looked at, on purpose: a peer is
//! its SPIFFE ID.

use super::PeerPolicy;
use crate::verify::{Usage, VerifyError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sealane_core::time::Millis;
use std::sync::Arc;

fn check(
    policy: &dyn PeerPolicy,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    usage: Usage,
) -> Result<(), Error> {
    // A chain longer than any policy takes is not worth copying.
    let chain: Vec<CertificateDer<'_>> =
        std::iter::once(leaf).chain(intermediates).take(crate::verify::MAX_CHAIN + 1).map(borrow).collect();
    policy.check(&chain, Millis(now.as_secs().saturating_mul(1000)), usage).map(|_| ()).map_err(|refusal| {
        tracing::debug!(%refusal, "peer refused");
        to_rustls(refusal)
    })
}

fn borrow<'a>(certificate: &'a CertificateDer<'_>) -> CertificateDer<'a> {
    CertificateDer::from(certificate.as_ref())
}

/// The error that makes rustls send the right alert and still tells the reason.
fn to_rustls(refusal: VerifyError) -> Error {
    let time = |ms: Millis| UnixTime::since_unix_epoch(std::time::Duration::from_millis(ms.0));
    Error::InvalidCertificate(match refusal {
        VerifyError::Expired { not_after, now } => {
            CertificateError::ExpiredContext { time: time(now), not_after: time(not_after) }
        }
        VerifyError::NotYetValid { not_before, now } => {
            CertificateError::NotValidYetContext { time: time(now), not_before: time(not_before) }
        }
        VerifyError::UnknownIssuer => CertificateError::UnknownIssuer,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if signature.scheme != SignatureScheme::ECDSA_NISTP256_SHA256 {
        return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
    }
    let algorithms = super::provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
}

/// The side that dialled checks the server.
#[derive(Debug)]
pub(super) struct ServerVerifier(Arc<dyn PeerPolicy>);

impl ServerVerifier {
    pub(super) fn new(policy: Arc<dyn PeerPolicy>) -> Arc<Self> {
        Arc::new(ServerVerifier(policy))
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check(&*self.0, leaf, intermediates, now, Usage::Server)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// The side that was dialled checks the client.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    policy: Arc<dyn PeerPolicy>,
    mandatory: bool,
}

impl ClientVerifier {
    pub(super) fn new(policy: Arc<dyn PeerPolicy>, mandatory: bool) -> Arc<Self> {
        Arc::new(ClientVerifier { policy, mandatory })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check(&*self.policy, leaf, intermediates, now, Usage::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
