//! What the server answers over gRPC: agents, administrators and other servers, on one port.
//!
//! Law: a handler first establishes who asks, from the certificate of the connection and what the state says of it;
//! Enroll.Join alone is open to a stranger. Handlers hold no state of their own but counts of what they bound.

mod admin;
mod catalog;
mod discovery;
mod enroll;
mod export;
mod peer;
mod servers;
mod streams;
mod who;

pub use admin::AdminService;
pub use catalog::CatalogService;
pub use discovery::DiscoveryService;
pub use enroll::EnrollService;
pub use peer::PeerService;
pub use servers::ServersService;
pub use who::{AgentIdentity, is_member_server};

use crate::consensus::replica::Replica;
use crate::issuers::Issuers;
use crate::lease::Leasing;
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::pki::Pki;
use crate::publish::Publisher;
use crate::writer::Writer;
use sealane_core::command::{Refusal, RefusalCode};
use sealane_core::identity::{FederationId, ServerId};
use sealane_core::name::TrustDomain;
use sealane_core::state::State;
use sealane_proto::federation::v1::Hello;
use sealane_proto::{Invalid, hello};
use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The largest request: a command of 1 MiB in its message, or the digests of a whole catalog.
pub const MAX_REQUEST: usize = 4 << 20;

/// What every handler works with. Clones share it.
#[derive(Clone)]
pub struct Serving(Arc<Parts>);

/// The parts of [`Serving`].
pub struct Parts {
    /// The federation.
    pub federation: FederationId,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// This server.
    pub id: ServerId,
    /// Keys and certificates.
    pub pki: Arc<Pki>,
    /// The replica.
    pub replica: Replica<Machine>,
    /// The way of writes.
    pub writer: Writer,
    /// The way to other servers.
    pub peers: Arc<Peers>,
    /// The views.
    pub publisher: Publisher,
    /// Leases and contacts.
    pub leasing: Leasing,
    /// The keys of clusters' issuers.
    pub(crate) issuers: Issuers,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Admits a few readings of the status API at a time: each may compute many views.
    pub reads: Arc<Semaphore>,
    /// Cancelled when the streams of agents are to end.
    pub drain: CancellationToken,
    /// Cancelled when those of other servers are to end too: after leadership was handed over.
    pub closing: CancellationToken,
}

impl Serving {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Serving(Arc::new(parts))
    }

    /// The state as of now.
    #[must_use]
    pub fn state(&self) -> State {
        self.replica.state().1.state.clone()
    }

    /// Where the servers are dialled.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.replica.state().1.state.servers.values().map(|s| s.address.clone()).collect()
    }

    /// Checks a client's hello, and gives ours.
    pub(crate) fn greet(&self, theirs: Option<&Hello>) -> Result<Hello, Status> {
        let theirs = theirs.ok_or_else(|| Status::invalid_argument("hello: is missing"))?;
        let ours = hello::hello(Some(self.federation));
        hello::negotiate(&ours, theirs).map_err(|e| Status::failed_precondition(e.to_string()))?;
        match hello::federation(theirs).map_err(|e| invalid(&e))? {
            Some(pinned) if pinned != self.federation => Err(Status::failed_precondition(format!(
                "this is federation {}, and the client belongs to {pinned}",
                self.federation
            ))),
            _ => Ok(ours),
        }
    }
}

impl Deref for Serving {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").field("id", &self.id).finish_non_exhaustive()
    }
}

pub(crate) fn invalid(error: &Invalid) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(crate) fn refused(refusal: &Refusal) -> Status {
    let message = refusal.message.clone();
    match refusal.code {
        RefusalCode::NotFound => Status::not_found(message),
        RefusalCode::Exists => Status::already_exists(message),
        RefusalCode::Forbidden => Status::permission_denied(message),
        RefusalCode::Expired | RefusalCode::Consumed | RefusalCode::Forgotten => {
            Status::failed_precondition(message)
        }
        RefusalCode::Invalid => Status::invalid_argument(message),
    }
}

/// A reply that no command of that kind is given: a defect, but not one to stop for.
pub(crate) fn unexpected() -> Status {
    Status::internal(
        "the store gave an answer that does not belong to the request: this is a defect, report it",
    )
}
