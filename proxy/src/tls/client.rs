//! The side that dials: connected means that the handshake finished with one of exactly the identities expected.

use crate::snapshot::Dial;
use crate::tls::{ALPN, ClientStream, HANDSHAKE, alert_of, why};
use crate::wire::Wire;
use sealane_core::endpoint::{GatewayAddress, GatewayHost};
use sealane_core::identity::SpiffeId;
use sealane_trust::bundle::Bundle;
use sealane_trust::tls::{FederationPeers, Identity};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a TCP connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// The most addresses of a gateway's DNS name that are tried.
const MAX_RESOLVED: usize = 4;

/// A configuration that accepts one of these identities, by the roots of their trust domain, and nobody else.
pub(crate) fn config(
    identity: &Identity,
    bundle: Bundle,
    accepted: BTreeSet<SpiffeId>,
) -> Arc<rustls::ClientConfig> {
    let policy = FederationPeers::matching(bundle, move |svid| accepted.contains(&svid.spiffe_id));
    sealane_trust::tls::client_config(Some(identity), Arc::new(policy), &[ALPN])
}

/// A dial that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name did not resolve.
    #[error("can not resolve {address}: {source}")]
    Resolve {
        /// What was looked up.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// No TCP connection.
    #[error("can not connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// No handshake, or with the wrong peer.
    #[error("no handshake with {address}: {}", why(.source))]
    Handshake {
        /// With whom.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

impl DialError {
    /// Whether the far side says that the name is not served there: the place itself is not to blame.
    pub(crate) fn is_unrecognized(&self) -> bool {
        matches!(self, DialError::Handshake { source, .. }
            if alert_of(source) == Some(rustls::AlertDescription::UnrecognisedName))
    }
}

/// Opens a TCP connection, marked as the proxy's own.
///
/// # Errors
/// When nobody answers in 2 s.
pub(crate) async fn connect(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let connect = async {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
        }?;
        if let Some(mark) = mark {
            socket2::SockRef::from(&socket).set_mark(mark)?;
        }
        let stream = socket.connect(address).await?;
        crate::wire::tune(&stream)?;
        Ok(stream)
    };
    timeout(CONNECT, connect).await?
}

/// Dials and shakes hands.
///
/// # Errors
/// When that fails or takes more than 5 s in all.
pub(crate) async fn dial(dial: &Dial, mark: Option<u32>) -> Result<(ClientStream, SocketAddr), DialError> {
    let addresses = resolve(&dial.address).await?;
    let mut last = None;
    for address in addresses {
        let attempt = async {
            let stream =
                connect(address, mark).await.map_err(|source| DialError::Connect { address, source })?;
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&dial.tls));
            let handshake = connector.connect(dial.server_name.clone(), Wire::new(stream)).await;
            handshake.map_err(|source| DialError::Handshake { address, source })
        };
        match timeout(HANDSHAKE, attempt).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = Some(DialError::Handshake { address, source: io::ErrorKind::TimedOut.into() }),
        }
    }
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no addresses");
    Err(last.unwrap_or_else(|| DialError::Resolve { address: dial.address.to_string(), source: none() }))
}

/// The addresses of a gateway.
///
/// # Errors
/// When its DNS name does not resolve within 2 s.
pub(crate) async fn resolve(address: &GatewayAddress) -> Result<Vec<SocketAddr>, DialError> {
    match &address.host {
        GatewayHost::Ip(ip) => Ok(vec![SocketAddr::new(*ip, address.port)]),
        GatewayHost::Dns(name) => {
            let failed = |source| DialError::Resolve { address: name.to_string(), source };
            let lookup = timeout(CONNECT, tokio::net::lookup_host((name.as_str(), address.port)));
            let found = lookup.await.map_err(|e| failed(e.into()))?.map_err(failed)?;
            Ok(found.take(MAX_RESOLVED).collect())
        }
    }
}

/// The identity that the server of a finished handshake proved.
pub(crate) fn peer(stream: &ClientStream) -> Option<SpiffeId> {
    sealane_trust::tls::peer(stream.get_ref().1).map(|v| v.spiffe_id.clone())
}
