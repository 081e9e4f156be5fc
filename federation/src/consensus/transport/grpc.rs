//! Peers over gRPC: one stream of batches to each, and snapshots on streams of their own.
//!
//! The server's side is two functions for whoever implements the service; they trust the `peer` they are given, which
//! must come from the connection's certificate.

use super::{Link, ReceiveError, Receiving, Transport};
use bytes::Bytes;
use sealane_core::identity::ServerId;
use sealane_proto::peer::v1::peer_client::PeerClient;
use sealane_proto::peer::v1::snapshot_chunk::Kind;
use sealane_proto::peer::v1::{RaftAck, RaftBatch, RaftMessage, SnapshotAck, SnapshotBegin, SnapshotChunk};
use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Messages that wait for a peer; beyond, they are dropped as a network would. Several windows of appends.
const QUEUE: usize = 1024;
/// Messages that one batch takes.
const BATCH: usize = 128;
/// The entries that one batch takes, so that it stays below what a server decodes.
const BATCH_BYTES: usize = 1 << 20;
/// Batches on their way into a connection.
const IN_FLIGHT: usize = 4;
/// The pause before a peer is dialled again.
const REDIAL: Duration = Duration::from_millis(100);
/// The piece of a snapshot that one chunk takes.
const CHUNK: usize = 128 << 10;
/// What all snapshots together take of the network, in bytes a second.
const SNAPSHOT_RATE: u64 = 64 << 20;
/// Snapshots sent at a time; more would only share the same rate.
const SNAPSHOTS: usize = 2;
/// How long one chunk, and in the end the verification, may take.
const CHUNK_PATIENCE: Duration = Duration::from_secs(30);
const VERIFY_PATIENCE: Duration = Duration::from_secs(300);

/// Gives the channel to a server, if its address is known.
pub type Dial = Arc<dyn Fn(ServerId) -> Option<Channel> + Send + Sync>;

/// Sends to peers over gRPC. Its tasks end with it.
pub struct GrpcTransport {
    link: Link,
    dial: Dial,
    runtime: Handle,
    peers: Mutex<HashMap<ServerId, Peer>>,
    snapshots: Arc<Semaphore>,
}

struct Peer {
    queue: mpsc::Sender<RaftMessage>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl GrpcTransport {
    /// A transport whose tasks run on `runtime`.
    pub fn new(link: Link, dial: Dial, runtime: Handle) -> Self {
        let (peers, snapshots) = (Mutex::default(), Arc::new(Semaphore::new(SNAPSHOTS)));
        GrpcTransport { link, dial, runtime, peers, snapshots }
    }
}

impl Transport for GrpcTransport {
    fn send(&self, to: ServerId, message: RaftMessage) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = peers.entry(to).or_insert_with(|| {
            let (queue, messages) = mpsc::channel(QUEUE);
            let task = self.runtime.spawn(keep_sending(to, self.link.clone(), self.dial.clone(), messages));
            Peer { queue, task }
        });
        if peer.queue.try_send(message).is_err() {
            self.link.unreachable(to);
        }
    }

    fn send_snapshot(&self, to: ServerId, message: RaftMessage, file: File) {
        let (link, dial, permits) = (self.link.clone(), self.dial.clone(), self.snapshots.clone());
        self.runtime.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            let index = message.snapshot.as_ref().map_or(0, |s| s.index);
            let sent = match dial(to) {
                Some(channel) => send_snapshot(&link, channel, message, file).await,
                None => Err(Status::unavailable("its address is not known")),
            };
            match &sent {
                Ok(()) => tracing::info!(peer = %to, index, "sent a snapshot"),
                Err(status) => {
                    let reason = status.message();
                    tracing::warn!(peer = %to, index, reason, "a snapshot was not delivered; it is tried again");
                }
            }
            link.snapshot_sent(to, sent.is_ok());
        });
    }
}

/// Keeps a stream to one peer; what comes while there is none is dropped.
async fn keep_sending(to: ServerId, link: Link, dial: Dial, mut messages: mpsc::Receiver<RaftMessage>) {
    while let Some(first) = messages.recv().await {
        if let Some(channel) = dial(to) {
            let (batches, stream) = mpsc::channel(IN_FLIGHT);
            let mut client = PeerClient::new(channel);
            let ended = tokio::select! {
                answer = client.raft(ReceiverStream::new(stream)) => answer.err(),
                () = pump(&link, first, &mut messages, batches) => None,
            };
            let reason = ended.map(|status| sealane_trust::grpc::causes(&status));
            tracing::debug!(peer = %to, reason, "the stream to a peer ended");
        }
        link.unreachable(to);
        sleep(REDIAL).await;
        // What waited through the pause is stale: raft sends anew what still matters.
        while messages.try_recv().is_ok() {}
    }
}

/// Turns queued messages into batches, in order, for as long as the stream takes them.
async fn pump(
    link: &Link,
    first: RaftMessage,
    messages: &mut mpsc::Receiver<RaftMessage>,
    batches: mpsc::Sender<RaftBatch>,
) {
    let federation = Bytes::copy_from_slice(&link.federation().0);
    let mut next = Some(first);
    while let Some(message) = next {
        let mut bytes = entry_bytes(&message);
        let mut batch = RaftBatch { federation: federation.clone(), messages: vec![message] };
        while batch.messages.len() < BATCH
            && bytes < BATCH_BYTES
            && let Ok(message) = messages.try_recv()
        {
            bytes += entry_bytes(&message);
            batch.messages.push(message);
        }
        if batches.send(batch).await.is_err() {
            return;
        }
        next = messages.recv().await;
    }
}

fn entry_bytes(message: &RaftMessage) -> usize {
    message.entries.iter().map(|e| e.data.len() + 32).sum()
}

async fn send_snapshot(
    link: &Link,
    channel: Channel,
    message: RaftMessage,
    file: File,
) -> Result<(), Status> {
    let size = file.metadata().map_err(Status::from)?.len();
    let (chunks, stream) = mpsc::channel(IN_FLIGHT);
    let federation = Bytes::copy_from_slice(&link.federation().0);
    let begin = SnapshotBegin { federation, message: Some(message), size };
    let feed = async {
        feed(chunks, begin, file).await?;
        // The answer comes once the receiver has verified all of it.
        sleep(VERIFY_PATIENCE).await;
        Err(Status::deadline_exceeded("the receiver did not verify it in time"))
    };
    let mut client = PeerClient::new(channel);
    tokio::select! {
        answer = client.snapshot(ReceiverStream::new(stream)) => answer.map(drop),
        failed = feed => failed,
    }
}

async fn feed(chunks: mpsc::Sender<SnapshotChunk>, begin: SnapshotBegin, file: File) -> Result<(), Status> {
    let send = async |kind: Kind| {
        let sent = timeout(CHUNK_PATIENCE, chunks.send(SnapshotChunk { kind: Some(kind) })).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            // The call's own end says why.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => Err(Status::deadline_exceeded("the receiver takes no more of it")),
        }
    };
    send(Kind::Begin(begin)).await?;
    let started = Instant::now();
    let mut file = tokio::fs::File::from_std(file);
    let mut sent: u64 = 0;
    loop {
        let mut piece = Vec::with_capacity(CHUNK);
        let taken = (&mut file).take(CHUNK as u64).read_to_end(&mut piece).await.map_err(Status::from)?;
        if taken == 0 {
            return Ok(());
        }
        send(Kind::Data(piece.into())).await?;
        sent += taken as u64;
        sleep_until(started + Duration::from_nanos(sent.saturating_mul(1_000_000_000) / SNAPSHOT_RATE)).await;
    }
}

fn refusal(error: &ReceiveError) -> Status {
    let message = error.to_string();
    match error {
        ReceiveError::Forged { .. } | ReceiveError::Foreign(_) => Status::permission_denied(message),
        ReceiveError::Misdirected { .. } | ReceiveError::Malformed { .. } => {
            Status::invalid_argument(message)
        }
        ReceiveError::Busy => Status::resource_exhausted(message),
        ReceiveError::Snapshot(_) => Status::data_loss(message),
        ReceiveError::Stopped => Status::unavailable(message),
    }
}

/// Serves `Peer.Raft` for an authenticated peer.
pub async fn serve_raft(
    link: &Link,
    peer: ServerId,
    mut batches: Streaming<RaftBatch>,
) -> Result<RaftAck, Status> {
    while let Some(batch) = batches.message().await? {
        if let Err(error) = link.deliver(peer, &batch.federation, batch.messages) {
            tracing::warn!(%peer, %error, "a peer's message is refused");
            return Err(refusal(&error));
        }
    }
    Ok(RaftAck {})
}

/// Serves `Peer.Snapshot` for an authenticated peer.
pub async fn serve_snapshot(
    link: &Link,
    peer: ServerId,
    mut chunks: Streaming<SnapshotChunk>,
) -> Result<SnapshotAck, Status> {
    let begin = match next(&mut chunks).await? {
        Some(Kind::Begin(begin)) => begin,
        _ => return Err(Status::invalid_argument("a snapshot starts with its head")),
    };
    let message = begin.message.ok_or_else(|| Status::invalid_argument("a snapshot has a message"))?;
    let receiving = link.receive(peer, &begin.federation, message, begin.size).map_err(|e| refusal(&e))?;
    let (pieces, taken) = mpsc::channel::<Bytes>(IN_FLIGHT);
    let writing = tokio::task::spawn_blocking(move || write(receiving, taken));
    while let Some(chunk) = next(&mut chunks).await? {
        let Kind::Data(bytes) = chunk else {
            return Err(Status::invalid_argument("a snapshot has one head"));
        };
        if pieces.send(bytes).await.is_err() {
            break;
        }
    }
    // An empty piece ends it; a closed channel alone means that the sender went away.
    let _ = pieces.send(Bytes::new()).await;
    match writing.await {
        Ok(Ok(())) => Ok(SnapshotAck {}),
        Ok(Err(error)) => {
            tracing::warn!(%peer, %error, "a peer's snapshot is refused");
            Err(refusal(&error))
        }
        Err(_) => Err(Status::internal("writing the snapshot failed")),
    }
}

async fn next(chunks: &mut Streaming<SnapshotChunk>) -> Result<Option<Kind>, Status> {
    match timeout(CHUNK_PATIENCE, chunks.message()).await {
        Ok(chunk) => match chunk? {
            Some(SnapshotChunk { kind: Some(kind) }) => Ok(Some(kind)),
            Some(SnapshotChunk { kind: None }) => Err(Status::invalid_argument("an empty chunk")),
            None => Ok(None),
        },
        Err(_) => Err(Status::deadline_exceeded("the snapshot stopped coming")),
    }
}

fn write(mut receiving: Receiving, mut pieces: mpsc::Receiver<Bytes>) -> Result<(), ReceiveError> {
    while let Some(piece) = pieces.blocking_recv() {
        if piece.is_empty() {
            return receiving.finish();
        }
        receiving.push(&piece)?;
    }
    Err(ReceiveError::Stopped)
}

#[cfg(test)]
mod tests;
