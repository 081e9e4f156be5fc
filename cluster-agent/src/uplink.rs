//! The agent's two streams to the store: its catalog upwards, its view downwards. It only ever dials out.
//!
//! Each stream is one loop: connect to any server, go on until something ends it, say so, wait, begin again.

mod changes;
mod export;
mod goodbye;
mod session;
mod watch;

pub use changes::Upward;
pub use export::{ExportLoop, keep_exporting};
pub use watch::{WatchLoop, keep_watching, persist};

use crate::status::Status;
use crate::store::Store;
use sealane_core::name::ClusterName;
use sealane_trust::grpc::ChannelError;
use std::time::Duration;

/// The shortest bound of a wait between tries.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait between tries.
const MOST: Duration = Duration::from_secs(5);
/// How long a server may take to answer the first message of a stream.
const OPENING: Duration = Duration::from_secs(5);
/// The largest message that is taken from a server. One delta has 256 KiB or one large item.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// The life of a lease: after being shut out by another instance we stay away for this long.
const TTL: Duration = Duration::from_secs(5);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The store ended it or could not be reached.
    #[error("{}: {}", .0.code(), .0.message())]
    Call(Box<tonic::Status>),
    /// The known servers' addresses are unusable.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Another instance of this cluster's agent shut us out.
    #[error("{0}")]
    Fenced(String),
    /// Another instance of this cluster's agent holds the session.
    #[error("{0}")]
    Held(String),
    /// The member of this name is another Kubernetes cluster.
    #[error("{0}")]
    OtherCluster(String),
    /// The store does not know this cluster any more.
    #[error("{said}")]
    Removed {
        /// What it said.
        said: String,
        /// Its goodbye, as it came; empty where it said none.
        goodbye: Vec<u8>,
    },
    /// The view was refused.
    #[error(transparent)]
    View(#[from] crate::view::ViewError),
    /// A message is not a domain value.
    #[error(transparent)]
    Invalid(#[from] sealane_proto::Invalid),
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The server went silent.
    #[error("the server has not answered for {0:?}")]
    Silent(Duration),
    /// The server ended the stream in order.
    #[error("the server ended the stream")]
    Ended,
    /// No random bytes for a session id.
    #[error(transparent)]
    Random(#[from] sealane_trust::RandomError),
}

impl From<tonic::Status> for StreamError {
    fn from(status: tonic::Status) -> Self {
        // The store says so in these words: at the opening, and to a session that another one replaced.
        match (status.code(), status.message().split_once(": ")) {
            (tonic::Code::FailedPrecondition, Some(("held", by))) => StreamError::Held(by.to_owned()),
            (tonic::Code::FailedPrecondition, Some(("fenced", by))) => StreamError::Fenced(by.to_owned()),
            (tonic::Code::FailedPrecondition, Some(("other-cluster", said))) => {
                StreamError::OtherCluster(said.to_owned())
            }
            (tonic::Code::PermissionDenied, _) if is_removal(status.message()) => {
                StreamError::Removed { said: status.message().to_owned(), goodbye: status.details().to_vec() }
            }
            _ => StreamError::Call(Box::new(status)),
        }
    }
}

/// Whether a refusal is one of those that a member which is none any more gets, on either stream.
fn is_removal(message: &str) -> bool {
    message.contains("was removed") || message.contains("is not a member")
}

/// Says once that this cluster was removed; the streams go on trying, for a restored store may know it again. What was
/// imported goes only by a signed goodbye.
fn removed(status: &Status, store: &Store, said: &str) {
    let cluster = store.membership().cluster;
    if status.removed(Some(removal(&cluster))) {
        tracing::error!(%cluster, said, "removed from the federation; start with an empty --dir and a new join token (in Kubernetes: without the Secret sealane-agent-identity), or add it again");
    }
}

fn removal(cluster: &ClusterName) -> String {
    format!(
        "cluster {cluster} was removed from the federation; start with an empty --dir and a new join token (in Kubernetes: \
         without the Secret sealane-agent-identity), or, where it joins by tokens of its issuer, add it again"
    )
}

#[cfg(test)]
mod tests;
