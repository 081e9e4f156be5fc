//! The bounds of an acceptor.

use std::time::Duration;

/// The bounds of an acceptor. The defaults suit a federation server of some hundreds of clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of verified peers.
    pub connections: usize,
    /// Open connections without a certificate.
    pub anonymous: usize,
    /// Open connections of one source: an IPv4 address, or an IPv6 /64 (which one host can have all of).
    pub per_source: usize,
    /// Handshakes in flight.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long open connections may go on after shutdown, and before their peer's certificate ends.
    pub drain: Duration,
    /// How long a connection may last whose peer's certificate had already expired (accepted for renewal).
    pub expired_peer: Duration,
    /// How long the connection of a revoked peer may last, to be told so; nothing refuses it at once.
    pub farewell: Duration,
    /// How often a silent HTTP/2 peer is asked whether it lives.
    pub keepalive: Duration,
    /// How long it may take to answer; also how long sent data may stay without acknowledgement beyond
    /// `keepalive`, and how long an HTTP/1.1 request's head may take.
    pub keepalive_timeout: Duration,
    /// HTTP/2 streams open at once on a connection.
    pub streams: u32,
    /// Bytes in the header list of an HTTP/2 request, and in the head of an HTTP/1.1 request.
    pub header_list: u32,
    /// HTTP/2 flow-control window of a stream.
    pub stream_window: u32,
    /// HTTP/2 flow-control window of a connection.
    pub connection_window: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4096,
            anonymous: 256,
            // Everything may be behind one address: a NAT, or 127.0.0.1 on one machine.
            per_source: 2048,
            // At some 20 KiB each while it lasts.
            handshakes: 512,
            handshake_timeout: Duration::from_secs(5),
            drain: Duration::from_secs(5),
            expired_peer: Duration::from_secs(30),
            farewell: Duration::ZERO,
            keepalive: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            streams: 256,
            header_list: 16 * 1024,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
        }
    }
}
