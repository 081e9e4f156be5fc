//! The few messages of etcd's public API (etcdserverpb) that are needed, and a client of one member.

use crate::store::load::Client;
use crate::store::session::PAYLOAD;
use anyhow::Result;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

/// What a member says of itself.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) raft_index: u64,
}

impl StatusResponse {
    /// Whether the member that said it leads.
    pub(crate) fn leads(&self) -> bool {
        self.leader != 0 && self.header.as_ref().is_some_and(|h| h.member_id == self.leader)
    }
}

async fn call<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let codec = ProstCodec::<Q, A>::default();
    let reply = grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await?;
    Ok(reply.into_inner())
}

/// Asks a member how it is.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn status(channel: &Channel) -> Result<StatusResponse> {
    call(channel, "/etcdserverpb.Maintenance/Status", StatusRequest {}).await
}

/// One who puts values under a key of its own.
#[derive(Debug, Clone)]
pub(crate) struct Putter {
    channel: Channel,
    key: Vec<u8>,
    count: u64,
}

impl Putter {
    /// Puts by this connection.
    pub(crate) fn new(channel: Channel, number: usize) -> Self {
        Putter { channel, key: format!("sealane/bench/{number:04}").into_bytes(), count: 0 }
    }
}

impl Client for Putter {
    async fn command(&mut self) -> Result<()> {
        self.count += 1;
        let mut value = vec![b'z'; PAYLOAD.saturating_sub(self.key.len())];
        value.iter_mut().zip(self.count.to_be_bytes()).for_each(|(to, byte)| *to = byte);
        let request = PutRequest { key: self.key.clone(), value };
        let _: PutResponse = call(&self.channel, "/etcdserverpb.KV/Put", request).await?;
        Ok(())
    }
}
