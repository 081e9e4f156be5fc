//! Channels to the other servers: mTLS, each bound to the identity of the server that is meant.

use crate::consensus::replica::Replica;
use crate::machine::Machine;
use sealane_core::identity::{Principal, ServerId};
use sealane_trust::bundle::Bundle;
use sealane_trust::grpc::{ChannelError, DialOptions, channel};
use sealane_trust::tls::{ALPN_H2, FederationPeers, Identity, client_config};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::Channel;

/// Why there is no channel to a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Its address is not known here yet.
    #[error("the address of server {0} is not known here")]
    Unknown(ServerId),
    /// Its address is unusable.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// Where servers are, beside what the state says: a joining server has no state yet.
pub type Known = BTreeMap<ServerId, String>;

/// Channels to the other servers, made when needed and kept.
pub struct Peers {
    identity: Identity,
    bundle: Bundle,
    known: Known,
    replica: std::sync::OnceLock<Replica<Machine>>,
    channels: Mutex<BTreeMap<ServerId, (String, Channel)>>,
}

impl Peers {
    /// No channel yet.
    #[must_use]
    pub fn new(identity: Identity, bundle: Bundle, known: Known) -> Arc<Self> {
        let (replica, channels) = (std::sync::OnceLock::new(), Mutex::default());
        Arc::new(Peers { identity, bundle, known, replica, channels })
    }

    /// From now on the replicated state says where servers are.
    pub fn attach(&self, replica: Replica<Machine>) {
        // A second call changes nothing; there is one replica a process.
        let _ = self.replica.set(replica);
    }

    /// Where a server is dialled.
    #[must_use]
    pub fn address(&self, server: ServerId) -> Option<String> {
        let state = self.replica.get().map(Replica::state);
        let recorded = state.and_then(|s| s.1.state.servers.get(&server).map(|s| s.address.clone()));
        recorded.or_else(|| self.known.get(&server).cloned())
    }

    /// A channel to a server. It dials when it is used.
    ///
    /// # Errors
    /// When the server's address is not known or unusable.
    pub fn channel(&self, server: ServerId) -> Result<Channel, PeerError> {
        let address = self.address(server).ok_or(PeerError::Unknown(server))?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, channel)) = channels.get(&server).filter(|(known, _)| *known == address) {
            return Ok(channel.clone());
        }
        let only = move |p: &Principal| *p == Principal::Server(server);
        let policy = Arc::new(FederationPeers::principals(self.bundle.clone(), only));
        let tls = client_config(Some(&self.identity), policy, &[ALPN_H2]);
        let options = DialOptions { connect_timeout: Duration::from_secs(1), ..DialOptions::default() };
        let made = channel(std::slice::from_ref(&address), tls, &options)?;
        channels.insert(server, (address, made.clone()));
        Ok(made)
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("known", &self.known).finish_non_exhaustive()
    }
}
