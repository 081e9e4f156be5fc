//! Commands on their way to the leader: one stream to each server that leads or led.
//!
//! Law: commands keep their order as far as the leader's log, because a session's writes are numbered and one that
//! overtakes another is refused. What was never sent is told from what may be applied yet.

use crate::consensus::transport::grpc::Dial;
use crate::writer::{WriteError, Written};
use bytes::Bytes;
use sealane_core::command::Reply;
use sealane_core::identity::ServerId;
use sealane_proto::Wire;
use sealane_proto::peer::v1 as pb;
use sealane_proto::peer::v1::forwarded::Kind;
use sealane_proto::peer::v1::peer_client::PeerClient;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Commands that wait for a stream; beyond, writers are told to come later.
const QUEUE: usize = 1024;
/// Commands of a stream whose outcome is awaited.
const UNDER_WAY: usize = 4096;
/// Commands in one message.
const BATCH: usize = 128;
/// The bytes of commands in one message, so that it stays below what a server decodes.
const BATCH_BYTES: usize = 1 << 20;
/// Messages on their way into the connection.
const IN_FLIGHT: usize = 4;
/// How often a stream that waits for answers alone looks for writers who went away.
const LOOK: Duration = Duration::from_secs(1);

type Outcome = Result<Written, WriteError>;

/// A command and its waiting writer.
struct Passed {
    command: Bytes,
    answer: oneshot::Sender<Outcome>,
}

impl Passed {
    /// It was never sent.
    fn refuse(self) {
        // A writer that went away is not an error, here and below.
        let _ = self.answer.send(Err(WriteError::NoLeader));
    }
}

/// The streams to the others.
pub(crate) struct Forwarder {
    dial: Dial,
    streams: Mutex<BTreeMap<ServerId, mpsc::Sender<Passed>>>,
}

impl Forwarder {
    /// No stream yet.
    pub(crate) fn new(dial: Dial) -> Self {
        Forwarder { dial, streams: Mutex::default() }
    }

    /// Has the leader commit a command. It takes its place in the order of commands at the first poll.
    pub(crate) async fn forward(&self, leader: ServerId, command: Bytes) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        self.hand_over(leader, Passed { command, answer })?;
        // The stream may end between taking the command and its answer.
        outcome.await.unwrap_or(Err(WriteError::Unknown))
    }

    fn hand_over(&self, leader: ServerId, mut passed: Passed) -> Result<(), WriteError> {
        use mpsc::error::TrySendError;
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = streams.get(&leader) {
            match queue.try_send(passed) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => return Err(WriteError::Busy),
                Err(TrySendError::Closed(back)) => passed = back,
            }
        }
        let channel = (self.dial)(leader).ok_or(WriteError::NoLeader)?;
        let (queue, commands) = mpsc::channel(QUEUE);
        // There is room in an empty queue.
        let _ = queue.try_send(passed);
        tokio::spawn(carry(leader, channel, commands));
        streams.insert(leader, queue);
        Ok(())
    }
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").finish_non_exhaustive()
    }
}

/// Keeps one stream until it breaks or nobody can hand commands over any more.
async fn carry(leader: ServerId, channel: Channel, mut commands: mpsc::Receiver<Passed>) {
    let reason = match exchange(channel, &mut commands).await {
        Ok(()) => None,
        Err(status) => Some(sealane_trust::grpc::causes(&status)),
    };
    tracing::debug!(%leader, reason, "the stream of commands to the leader ended");
    // Whoever is handing a command over just now still gets it in: it is waited for.
    commands.close();
    while let Some(unsent) = commands.recv().await {
        unsent.refuse();
    }
}

async fn exchange(channel: Channel, commands: &mut mpsc::Receiver<Passed>) -> Result<(), tonic::Status> {
    let (batches, stream) = mpsc::channel(IN_FLIGHT);
    let mut client = PeerClient::new(channel);
    let mut outcomes = client.forward(ReceiverStream::new(stream)).await?.into_inner();
    let mut sent = Sent::default();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What could not be sent yet stays in the queue: of that it is known that it was never sent.
    let mut permit = None;
    loop {
        tokio::select! {
            answered = outcomes.message() => match answered? {
                Some(answered) => answered.outcomes.into_iter().for_each(|o| sent.answer(o)),
                None => return Ok(()),
            },
            free = batches.reserve(), if permit.is_none() && sent.has_room() => match free {
                Ok(free) => permit = Some(free),
                Err(_) => return Ok(()),
            },
            first = commands.recv(), if permit.is_some() => {
                let (Some(first), Some(permit)) = (first, permit.take()) else { return Ok(()) };
                permit.send(pb::ForwardBatch { commands: sent.batch(first, commands) });
            }
            // Writers whose patience ended make room, though no answer comes.
            _ = looks.tick(), if !sent.has_room() => {}
        }
    }
}

/// What was sent and is not answered, by number.
#[derive(Default)]
struct Sent {
    waiting: HashMap<u64, oneshot::Sender<Outcome>>,
    last: u64,
}

impl Sent {
    /// Whether another may be sent. Those whose writers went away are forgotten only when room is needed.
    fn has_room(&mut self) -> bool {
        if self.waiting.len() >= UNDER_WAY {
            self.waiting.retain(|_, answer| !answer.is_closed());
        }
        self.waiting.len() < UNDER_WAY
    }

    /// One message of what waits.
    fn batch(&mut self, first: Passed, commands: &mut mpsc::Receiver<Passed>) -> Vec<pb::Forward> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(Passed { command, answer }) = next {
            self.last += 1;
            bytes += command.len();
            self.waiting.insert(self.last, answer);
            batch.push(pb::Forward { number: self.last, command });
            let room = batch.len() < BATCH && bytes < BATCH_BYTES;
            next = if room { commands.try_recv().ok() } else { None };
        }
        batch
    }

    fn answer(&mut self, outcome: pb::Forwarded) {
        let Some(writer) = self.waiting.remove(&outcome.number) else { return };
        let _ = writer.send(match outcome.kind {
            Some(Kind::Committed(done)) => Reply::decode(&done.reply)
                .map(|reply| Written { index: done.index, reply })
                .map_err(|_| WriteError::Unknown),
            Some(Kind::NotLeader(_)) => Err(WriteError::NoLeader),
            Some(Kind::Busy(_)) => Err(WriteError::Busy),
            Some(Kind::Refused(refused)) => Err(WriteError::Refused(refused.reason)),
            Some(Kind::Unknown(_)) | None => Err(WriteError::Unknown),
        });
    }
}

#[cfg(test)]
mod tests;
