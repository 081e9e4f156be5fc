//! How the agent reaches the store: its identity, the federation's roots and the servers, all of which may change.

use crate::state::Membership;
use arc_swap::ArcSwap;
use sealane_trust::bundle::Bundle;
use sealane_trust::grpc::{ChannelError, DialOptions, MAX_ADDRESSES, channel};
use sealane_trust::tls::{self, FederationPeers, Identity};
use std::sync::Arc;
use tonic::transport::Channel;

/// The way to the store.
#[derive(Debug)]
pub struct Store {
    identity: Identity,
    peers: Arc<FederationPeers>,
    membership: ArcSwap<Membership>,
}

impl Store {
    /// A way by what joining brought.
    #[must_use]
    pub fn new(membership: Membership, identity: Identity, roots: Bundle) -> Self {
        let peers = Arc::new(FederationPeers::servers(roots));
        Store { identity, peers, membership: ArcSwap::from_pointee(membership) }
    }

    /// A new channel to any server, beginning with one at random: a server that hangs is not chosen for ever.
    ///
    /// # Errors
    /// When the known servers' addresses are unusable.
    pub fn channel(&self) -> Result<Channel, ChannelError> {
        let mut servers = self.membership.load().servers.clone();
        if !servers.is_empty() {
            let first = rand::random_range(0..servers.len());
            servers.rotate_left(first);
        }
        servers.truncate(MAX_ADDRESSES);
        let tls = tls::client_config(Some(&self.identity), self.peers.clone(), &[tls::ALPN_H2]);
        channel(&servers, tls, &DialOptions::default())
    }

    /// The certificate by which the agent speaks to the store.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What joining and renewing brought.
    #[must_use]
    pub fn membership(&self) -> Membership {
        Membership::clone(&self.membership.load())
    }

    /// The federation's roots.
    #[must_use]
    pub fn roots(&self) -> Bundle {
        self.peers.bundle()
    }

    /// Takes what renewing brought.
    pub fn replace(&self, membership: Membership, roots: Bundle) {
        self.membership.store(Arc::new(membership));
        self.peers.replace(roots);
    }
}
