//! A catalog session as an agent keeps it: signs of life every second, writes answered in their order.

use super::member::{Member, patiently};
use anyhow::{Context, Result, bail, ensure};
use sealane_core::command::CatalogChange;
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::catalog_client::CatalogClient;
use sealane_proto::federation::v1::export_reply::Kind as Answer;
use sealane_proto::federation::v1::export_request::Kind as Request;
use sealane_proto::{Wire, hello};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// As the real agent.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Messages that may wait for the connection: one write and signs of life.
const OUTGOING: usize = 4;

/// An open session; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    requests: mpsc::Sender<pb::ExportRequest>,
    written: mpsc::Receiver<u64>,
    sequence: u64,
    _keeper: JoinSet<Result<()>>,
}

impl Session {
    /// Opens one.
    ///
    /// # Errors
    /// When the server does not open it.
    pub(crate) async fn open(member: &Member, channel: Channel) -> Result<Self> {
        patiently(|| Self::attempt(member.clone(), channel.clone())).await
    }

    async fn attempt(member: Member, channel: Channel) -> Result<Self> {
        let (requests, stream) = mpsc::channel(OUTGOING);
        let open = pb::Open {
            hello: Some(hello::hello(Some(member.federation))),
            session: sealane_trust::random::<16>()?.to_vec(),
            instance: sealane_trust::random::<16>()?.to_vec(),
            uid: None,
        };
        requests.send(pb::ExportRequest { kind: Some(Request::Open(open)) }).await?;
        let mut answers = CatalogClient::new(channel).export(ReceiverStream::new(stream)).await?.into_inner();
        let first = answers.message().await?.and_then(|m| m.kind);
        ensure!(matches!(first, Some(Answer::Opened(_))), "the session of {} was not opened", member.name);
        let (done, written) = mpsc::channel(1);
        let mut keeper = JoinSet::new();
        keeper.spawn(keep(requests.clone(), answers, done));
        Ok(Session { requests, written, sequence: 0, _keeper: keeper })
    }

    /// Has changes written, and waits until they are committed and applied: as the real agent, one write at a time.
    ///
    /// # Errors
    /// When the session ends first.
    pub(crate) async fn write(&mut self, changes: &[CatalogChange]) -> Result<()> {
        self.sequence += 1;
        let changes = changes.iter().map(Wire::to_wire).collect();
        let write = pb::Write { sequence: self.sequence, changes };
        let sent = self.requests.send(pb::ExportRequest { kind: Some(Request::Write(write)) }).await;
        sent.context("the session ended")?;
        let answered = self.written.recv().await.context("the session ended before a write was answered")?;
        ensure!(answered == self.sequence, "write {answered} was answered instead of {}", self.sequence);
        Ok(())
    }
}

/// Beats, and passes on what was written.
async fn keep(
    requests: mpsc::Sender<pb::ExportRequest>,
    mut answers: Streaming<pb::ExportReply>,
    done: mpsc::Sender<u64>,
) -> Result<()> {
    let mut beats = tokio::time::interval(HEARTBEAT);
    let mut number = 0;
    loop {
        tokio::select! {
            message = answers.message() => match message?.and_then(|m| m.kind) {
                Some(Answer::Written(written)) => {
                    let refused = written.result.map_or(0, |r| r.refused.len());
                    ensure!(refused == 0, "the store refused {refused} changes of write {}", written.sequence);
                    done.send(written.sequence).await?;
                }
                Some(_) => {}
                None => bail!("the server ended the session"),
            },
            _ = beats.tick() => {
                number += 1;
                let beat = Request::Heartbeat(pb::Heartbeat { number });
                requests.send(pb::ExportRequest { kind: Some(beat) }).await?;
            }
        }
    }
}
