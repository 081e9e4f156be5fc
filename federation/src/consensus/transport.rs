//! The way to the peers: it may lose, delay and repeat messages, but neither invent nor forge them.
//!
//! Sending never waits. What can not be queued is dropped and the peer reported unreachable, so that raft probes it
//! instead of believing the window in flight. A snapshot is always reported, delivered or not; until then raft sends
//! that follower nothing else.

pub mod grpc;
mod link;

pub use link::{Link, ReceiveError, Receiving};

use sealane_core::identity::ServerId;
use sealane_proto::peer::v1::RaftMessage;
use std::fs::File;

/// Sends to peers.
pub trait Transport: Send + Sync + 'static {
    /// Queues a message.
    fn send(&self, to: ServerId, message: RaftMessage);
    /// Sends a snapshot message with its file, apart from the others and slower.
    fn send_snapshot(&self, to: ServerId, message: RaftMessage, file: File);
}
