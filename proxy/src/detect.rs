//! What a port's connections speak: the seam for HTTP. Today every one is opaque, whatever its Service states.
//!
//! It is decided by what is declared, once a change: nothing is read from a connection for it, because a server that
//! speaks first would wait for ever.

use sealane_core::service::Port;

/// A protocol that the proxy treats in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Bytes, relayed as they come.
    Opaque,
}

/// What is spoken at an import's port.
pub(crate) fn declared(_port: &Port) -> Speaks {
    Speaks::Opaque
}
