//! A replica's side of the way: where messages of peers come in, and where the transport reports what it lost.

use crate::consensus::inbox::Inbox;
use crate::consensus::node::Input;
use crate::consensus::wire::{self, WireError};
use crate::store::log::Position;
use crate::store::snapshot::{Incoming, SnapshotError};
use raft::eraftpb::{Message, MessageType};
use sealane_core::identity::{FederationId, ServerId};
use sealane_proto::peer::v1::RaftMessage;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a link needs of an inbox, whatever the machine's replies.
trait Door: Send + Sync {
    fn message(&self, message: Message) -> bool;
    fn report(&self, input: Input);
    fn is_closed(&self) -> bool;
}

impl<R: Send> Door for Inbox<R> {
    fn message(&self, message: Message) -> bool {
        Inbox::message(self, message)
    }

    fn report(&self, input: Input) {
        Inbox::report(self, input);
    }

    fn is_closed(&self) -> bool {
        self.closed().is_some()
    }
}

/// Where a replica's peers reach it. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    id: ServerId,
    federation: FederationId,
    snapshots: PathBuf,
    door: Arc<dyn Door>,
    receiving: Arc<Semaphore>,
}

/// Why a peer's message or snapshot is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It says that it is from another than its certificate does.
    #[error("server {peer} sent a message from server {from}")]
    Forged {
        /// Whose connection it came on.
        peer: ServerId,
        /// Whom it says that it is from.
        from: u64,
    },
    /// It is for another server.
    #[error("a message for server {to} came to server {here}")]
    Misdirected {
        /// Whom it is for.
        to: u64,
        /// Where it came.
        here: ServerId,
    },
    /// It is of another federation.
    #[error("server {0} is of another federation")]
    Foreign(ServerId),
    /// It holds what no peer sends.
    #[error("server {peer} sent what no server sends: {source}")]
    Malformed {
        /// Who sent it.
        peer: ServerId,
        /// What is wrong.
        source: WireError,
    },
    /// A snapshot is being received already.
    #[error("another snapshot is being received")]
    Busy,
    /// The snapshot is not whole, or could not be kept.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The replica takes nothing more.
    #[error("the replica takes no message")]
    Stopped,
}

impl Link {
    pub(crate) fn new<R: Send + 'static>(
        id: ServerId,
        federation: FederationId,
        snapshots: PathBuf,
        inbox: Arc<Inbox<R>>,
    ) -> Self {
        Link { id, federation, snapshots, door: inbox, receiving: Arc::new(Semaphore::new(1)) }
    }

    /// This server.
    pub fn id(&self) -> ServerId {
        self.id
    }

    /// The federation, which every batch and snapshot names.
    pub fn federation(&self) -> FederationId {
        self.federation
    }

    fn check(
        &self,
        peer: ServerId,
        federation: &[u8],
        message: RaftMessage,
    ) -> Result<Message, ReceiveError> {
        if federation != self.federation.0 {
            return Err(ReceiveError::Foreign(peer));
        }
        if message.from != peer.0 {
            return Err(ReceiveError::Forged { peer, from: message.from });
        }
        if message.to != self.id.0 {
            return Err(ReceiveError::Misdirected { to: message.to, here: self.id });
        }
        wire::message_from_wire(message).map_err(|source| ReceiveError::Malformed { peer, source })
    }

    /// Takes messages that came on an authenticated connection of `peer`.
    pub fn deliver(
        &self,
        peer: ServerId,
        federation: &[u8],
        messages: Vec<RaftMessage>,
    ) -> Result<(), ReceiveError> {
        for message in messages {
            let message = self.check(peer, federation, message)?;
            if message.get_msg_type() == MessageType::MsgSnapshot {
                // It comes with its file or not at all.
                return Err(ReceiveError::Malformed { peer, source: WireError::Unknown("message type") });
            }
            if !self.door.message(message) {
                // A peer must look for a replica that ended elsewhere, and not go on talking to what is left of it.
                if self.door.is_closed() {
                    return Err(ReceiveError::Stopped);
                }
                tracing::debug!(%peer, "dropped a message: the inbox is full");
            }
        }
        Ok(())
    }

    /// Begins to take a snapshot. One at a time: a second one would only compete for the same disk.
    pub fn receive(
        &self,
        peer: ServerId,
        federation: &[u8],
        message: RaftMessage,
        size: u64,
    ) -> Result<Receiving, ReceiveError> {
        let message = self.check(peer, federation, message)?;
        if message.get_msg_type() != MessageType::MsgSnapshot {
            return Err(ReceiveError::Malformed { peer, source: WireError::Unknown("message type") });
        }
        let permit = self.receiving.clone().try_acquire_owned().map_err(|_| ReceiveError::Busy)?;
        let metadata = message.get_snapshot().get_metadata();
        let position = Position { index: metadata.index, term: metadata.term };
        let incoming = Incoming::create(&self.snapshots, peer, position, size)?;
        Ok(Receiving { link: self.clone(), message, incoming, _permit: permit })
    }

    /// A snapshot came whole and rests where it should: lets raft know of it.
    pub(crate) fn installed(
        &self,
        peer: ServerId,
        federation: &[u8],
        message: RaftMessage,
    ) -> Result<(), ReceiveError> {
        let message = self.check(peer, federation, message)?;
        if self.door.message(message) { Ok(()) } else { Err(ReceiveError::Stopped) }
    }

    /// A message to this peer was lost.
    pub fn unreachable(&self, peer: ServerId) {
        self.door.report(Input::Unreachable(peer.0));
    }

    /// A snapshot was delivered to this peer, or was not.
    pub fn snapshot_sent(&self, peer: ServerId, delivered: bool) {
        self.door.report(Input::SnapshotSent(peer.0, delivered));
    }
}

/// A snapshot on its way in. Its methods write to the disk: not for an async thread.
pub struct Receiving {
    link: Link,
    message: Message,
    incoming: Incoming,
    _permit: OwnedSemaphorePermit,
}

impl Receiving {
    /// Takes the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ReceiveError> {
        Ok(self.incoming.push(bytes)?)
    }

    /// Verifies the file and lets raft know of it.
    pub fn finish(self) -> Result<(), ReceiveError> {
        let Receiving { link, message, incoming, _permit } = self;
        let (header, path) = incoming.finish(link.federation)?;
        let promised = message.get_snapshot().get_metadata();
        if header.metadata != *promised {
            crate::store::durable::remove_file(&path).map_err(|source| SnapshotError::Io {
                doing: "remove",
                path: path.clone(),
                source,
            })?;
            let why = "its head says otherwise than its message";
            return Err(SnapshotError::Damaged { path, why }.into());
        }
        if link.door.message(message) { Ok(()) } else { Err(ReceiveError::Stopped) }
    }
}
