//! TLS 1.3 configurations: P-256, no resumption and no early data in either direction, because a resumed session is
//! not verified again.

mod identity;
mod policy;
mod verifier;

pub use identity::{Identity, IdentityError};
pub use policy::{FederationPeers, PeerPolicy};

use crate::svid::Svid;
use crate::verify::Verified;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring as tls_ring;
use rustls::{ClientConfig, CommonState, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use std::sync::{Arc, OnceLock};
use verifier::{ClientVerifier, ServerVerifier};

/// HTTP/2, as gRPC uses it.
pub const ALPN_H2: &[u8] = b"h2";
/// HTTP/1.1.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Our cryptography: *ring*, TLS 1.3 suites with AES-128-GCM first, X25519 and P-256. Nothing installs it globally, but
/// for the Kubernetes client of the agent, which takes it from nowhere else.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let made = PROVIDER.get_or_init(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                tls_ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
                tls_ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
                tls_ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![tls_ring::kx_group::X25519, tls_ring::kx_group::SECP256R1],
            ..tls_ring::default_provider()
        })
    });
    Arc::clone(made)
}

/// What a server asks of its clients.
#[derive(Debug, Clone)]
pub enum ClientAuth {
    /// A certificate that the policy accepts, or no connection.
    Required(Arc<dyn PeerPolicy>),
    /// A certificate that the policy accepts, or none; a refused one ends the handshake.
    Optional(Arc<dyn PeerPolicy>),
    /// No certificate is asked for.
    None,
}

/// A server's configuration. The identity may be replaced while it is in use.
#[must_use]
pub fn server_config(identity: &Identity, client: ClientAuth, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("our provider has TLS 1.3 suites");
    let builder = match client {
        ClientAuth::Required(policy) => builder.with_client_cert_verifier(ClientVerifier::new(policy, true)),
        ClientAuth::Optional(policy) => builder.with_client_cert_verifier(ClientVerifier::new(policy, false)),
        ClientAuth::None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(identity.clone()));
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// A client's configuration. The identity may be replaced while it is in use; without one the client is anonymous.
#[must_use]
pub fn client_config(
    identity: Option<&Identity>,
    policy: Arc<dyn PeerPolicy>,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("our provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(ServerVerifier::new(policy));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity.clone())),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    Arc::new(config)
}

/// An anonymous client of the web's servers, which are known by their host names: for nothing but an issuer's keys.
///
/// # Errors
/// When a root is no certificate, or there is none.
pub fn web_client(roots: &[CertificateDer<'_>]) -> Result<ClientConfig, rustls::Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone().into_owned())?;
    }
    if store.is_empty() {
        return Err(rustls::Error::General("there is no certificate authority to verify it by".to_owned()));
    }
    // Their versions and suites, not ours: TLS 1.2 is still all that some of them speak.
    let builder = ClientConfig::builder_with_provider(Arc::new(tls_ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(store).with_no_client_auth())
}

/// Who the peer of a connection made with [`server_config`] or [`client_config`] is; `None` while the handshake lasts
/// and for a client without a certificate.
///
/// The chain was verified in the handshake; this only reads the leaf again.
#[must_use]
pub fn peer(connection: &CommonState) -> Option<Verified> {
    if connection.is_handshaking() {
        return None;
    }
    let leaf = connection.peer_certificates()?.first()?;
    Svid::parse(leaf).ok().map(Verified::after_handshake)
}

#[cfg(test)]
mod tests;
