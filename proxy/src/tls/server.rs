//! The side that is dialled: the client proves an identity of a trust domain that we know, and is admitted by it,
//! within the handshake. A refusal is an alert, before any byte of the application.

use crate::authorize::{Admits, Domains, authorize};
use crate::tls::{ALPN, HANDSHAKE, ServerStream};
use crate::wire::{Filled, Wire};
use rustls::pki_types::CertificateDer;
use sealane_core::identity::SpiffeId;
use sealane_core::time::Millis;
use sealane_trust::svid::Svid;
use sealane_trust::tls::{ClientAuth, Identity, PeerPolicy};
use sealane_trust::verify::{Expiry, Usage, Verified, VerifyError, verify_chain};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Verifies a client against the roots of the trust domain that its SPIFFE ID names, and admits it.
#[derive(Debug)]
struct Admission {
    domains: Arc<Domains>,
    admits: Admits,
}

impl PeerPolicy for Admission {
    fn check(
        &self,
        chain: &[CertificateDer<'_>],
        now: Millis,
        usage: Usage,
    ) -> Result<Verified, VerifyError> {
        let claimed = Svid::parse(chain.first().ok_or(VerifyError::Empty)?)?;
        let refused = |_| VerifyError::WrongIdentity(claimed.spiffe_id.clone());
        let peer = authorize(&self.domains, &self.admits, &claimed.spiffe_id).map_err(refused)?;
        let bundle = peer.bundle.as_ref().ok_or(VerifyError::UnknownIssuer)?;
        verify_chain(bundle, chain, now, usage, Expiry::Strict)
    }
}

/// A configuration that admits exactly these. Made once a change.
pub(crate) fn config(
    identity: &Identity,
    domains: Arc<Domains>,
    admits: Admits,
) -> Arc<rustls::ServerConfig> {
    let policy = Arc::new(Admission { domains, admits });
    sealane_trust::tls::server_config(identity, ClientAuth::Required(policy), &[ALPN])
}

/// The rest of a handshake whose ClientHello was read already.
///
/// # Errors
/// When it fails or takes too long; the peer has been told by an alert.
pub(crate) async fn finish(
    stream: TcpStream,
    hello: Filled,
    config: Arc<rustls::ServerConfig>,
) -> io::Result<ServerStream> {
    let wire = Wire::replaying(stream, hello);
    timeout(HANDSHAKE, tokio_rustls::TlsAcceptor::from(config).accept(wire)).await?
}

/// The identity that the peer of a finished handshake proved.
pub(crate) fn peer(stream: &ServerStream) -> Option<SpiffeId> {
    sealane_trust::tls::peer(stream.get_ref().1).map(|v| v.spiffe_id.clone())
}
