//! A hand-made agent: what its certificate lets it write, and what not.

use anyhow::{Context, Result};
use sealane_core::command::{CatalogChange, CatalogResult};
use sealane_proto::Wire;
use sealane_proto::federation::v1 as wire;
use sealane_proto::federation::v1::catalog_client::CatalogClient;
use sealane_proto::federation::v1::export_reply::Kind as Reply;
use sealane_proto::federation::v1::export_request::Kind as Request;
use sealane_trust::bundle::Bundle;
use sealane_trust::grpc::{DialOptions, channel};
use sealane_trust::tls::{self, ALPN_H2, FederationPeers, Identity};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Messages on their way: one write at a time.
const OUTGOING: usize = 8;

/// A channel to a server under an identity.
///
/// # Errors
/// When the address is malformed.
pub fn dial(server: SocketAddr, identity: &Identity, roots: &Bundle) -> Result<Channel> {
    let policy = Arc::new(FederationPeers::servers(roots.clone()));
    let tls = tls::client_config(Some(identity), policy, &[ALPN_H2]);
    Ok(channel(&[server.to_string()], tls, &DialOptions::default())?)
}

/// An open catalog session.
#[derive(Debug)]
pub struct Uplink {
    requests: mpsc::Sender<wire::ExportRequest>,
    replies: Streaming<wire::ExportReply>,
    sequence: u64,
}

impl Uplink {
    /// Opens a session.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn open(channel: Channel, session: [u8; 16], instance: [u8; 16]) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(OUTGOING);
        let open = wire::Open {
            hello: Some(sealane_proto::hello::hello(None)),
            session: session.to_vec(),
            instance: instance.to_vec(),
            uid: None,
        };
        send(&requests, Request::Open(open)).await?;
        let replies = CatalogClient::new(channel).export(ReceiverStream::new(outgoing)).await?.into_inner();
        let mut uplink = Uplink { requests, replies, sequence: 0 };
        match uplink.reply().await? {
            Reply::Opened(_) => Ok(uplink),
            other => Err(Status::internal(format!("not an opening: {other:?}"))),
        }
    }

    /// Writes, and gives what the state refused of it.
    ///
    /// # Errors
    /// When the server ends the session, or answers something else.
    pub async fn write(&mut self, changes: &[CatalogChange]) -> Result<CatalogResult> {
        self.sequence += 1;
        let changes = changes.iter().map(Wire::to_wire).collect();
        send(&self.requests, Request::Write(wire::Write { sequence: self.sequence, changes })).await?;
        let Reply::Written(written) = self.reply().await? else { anyhow::bail!("no answer to a write") };
        let result = written.result.map(CatalogResult::from_wire).transpose();
        Ok(result.context("the answer's result")?.unwrap_or_default())
    }

    async fn reply(&mut self) -> Result<Reply, Status> {
        let message = self.replies.message().await?;
        message.and_then(|m| m.kind).ok_or_else(|| Status::unavailable("the server ended the stream"))
    }
}

async fn send(requests: &mpsc::Sender<wire::ExportRequest>, kind: Request) -> Result<(), Status> {
    let sent = requests.send(wire::ExportRequest { kind: Some(kind) }).await;
    sent.map_err(|_| Status::unavailable("the stream is gone"))
}
