//! mTLS between proxies: TLS 1.3, ALPN `sealane-tcp/1`, one trust domain at a time.

pub(crate) mod client;
pub(crate) mod hello;
pub(crate) mod read;
pub(crate) mod server;

#[cfg(test)]
pub(crate) mod tests;

use crate::wire::Wire;
use std::io;
use std::time::Duration;

/// The protocol between proxies: no preamble, close_notify is half-close.
pub(crate) const ALPN: &[u8] = b"sealane-tcp/1";
/// How long a handshake may take, from the first byte on.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);

/// A stream of which we are the server.
pub(crate) type ServerStream = tokio_rustls::server::TlsStream<Wire>;
/// A stream of which we are the client.
pub(crate) type ClientStream = tokio_rustls::client::TlsStream<Wire>;

/// The fatal alert that the peer sent, where that is why a stream ended.
pub(crate) fn alert_of(error: &io::Error) -> Option<rustls::AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// A handshake's error in words: our own reasons as they were given, not as the TLS library wraps them.
pub(crate) fn why(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(reason))) => {
            reason.0.to_string()
        }
        _ => error.to_string(),
    }
}

/// Whether the peer refused us for who we are: trying another of its kind would not help.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    use rustls::AlertDescription as A;
    matches!(
        alert_of(error),
        Some(
            A::AccessDenied
                | A::BadCertificate
                | A::UnsupportedCertificate
                | A::CertificateRevoked
                | A::CertificateExpired
                | A::CertificateUnknown
                | A::CertificateRequired
                | A::UnknownCA
        )
    )
}
