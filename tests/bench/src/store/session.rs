//! A client of Sealane's store: an agent's export session that changes one endpoint of its own service, over and over.

use super::load::Client;
use super::members::Member;
use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use sealane_core::identity::SessionId;
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::catalog_client::CatalogClient;
use sealane_proto::federation::v1::export_reply::Kind as Answer;
use sealane_proto::federation::v1::export_request::Kind as Request;
use sealane_proto::hello;
use sealane_proto::types::v1 as types;
use sealane_proto::types::v1::catalog_change::Kind as Change;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// The size of a command's payload: of a change here, of key and value there.
pub(crate) const PAYLOAD: usize = 256;

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    requests: mpsc::Sender<pb::ExportRequest>,
    answers: Streaming<pb::ExportReply>,
    service: types::ServiceKey,
    sequence: u64,
}

impl Session {
    /// Opens a session of a cluster at one server, over a connection of its own, and exports the service.
    ///
    /// # Errors
    /// When the server refuses.
    pub(crate) async fn open(member: &Member, server: &str) -> Result<Self> {
        let (requests, stream) = mpsc::channel(1);
        let open = pb::Open {
            hello: Some(hello::hello(Some(member.federation))),
            // Of later sessions of an instance the numbers must be higher.
            session: SessionId::numbered(sealane_trust::clock::now().0, sealane_trust::random()?).0.to_vec(),
            // The same in every session of a member, so that none is taken for an intruder's.
            instance: sealane_trust::sha256(member.name.as_bytes())[..16].to_vec(),
            uid: None,
        };
        let mut client = CatalogClient::new(member.dial(server)?);
        requests.send(pb::ExportRequest { kind: Some(Request::Open(open)) }).await?;
        let answers = client.export(ReceiverStream::new(stream)).await?.into_inner();
        let service = types::ServiceKey { namespace: "bench".to_owned(), name: member.name.clone() };
        let mut session = Session { requests, answers, service, sequence: 0 };
        match session.answer().await? {
            Answer::Opened(_) => {}
            _ => bail!("the session of {} was answered with something else than its opening", member.name),
        }
        let put = Change::PutExport(export(&session.service));
        session.write(types::CatalogChange { kind: Some(put) }).await?;
        Ok(session)
    }

    async fn answer(&mut self) -> Result<Answer> {
        let reply = self.answers.message().await?.context("the server ended the session")?;
        reply.kind.context("an empty answer")
    }

    /// Sends one change and waits until it is committed.
    async fn write(&mut self, change: types::CatalogChange) -> Result<()> {
        self.sequence += 1;
        let write = pb::Write { sequence: self.sequence, changes: vec![change] };
        let sent = self.requests.send(pb::ExportRequest { kind: Some(Request::Write(write)) }).await;
        sent.context("the server ended the session")?;
        let Answer::Written(written) = self.answer().await? else { bail!("a write was not answered as one") };
        ensure!(written.sequence == self.sequence, "write {} was not answered next", self.sequence);
        let refused = written.result.unwrap_or_default().refused;
        ensure!(refused.is_empty(), "the change was refused: {refused:?}");
        Ok(())
    }
}

impl Client for Session {
    async fn command(&mut self) -> Result<()> {
        let change = endpoint(&self.service, self.sequence);
        self.write(change).await
    }
}

fn export(service: &types::ServiceKey) -> types::PutExport {
    let port = types::Port {
        name: "http".to_owned(),
        protocol: types::Protocol::Tcp.into(),
        port: 80,
        app_protocol: None,
    };
    let spec = types::ExportSpec {
        service_type: types::ServiceType::ClusterSetIp.into(),
        ports: vec![port],
        session_affinity: types::SessionAffinity::None.into(),
        internal_traffic_policy: types::InternalTrafficPolicy::Cluster.into(),
        ip_families: vec![types::IpFamily::V4.into()],
        ..Default::default()
    };
    let export =
        types::Export { spec: Some(types::export::Spec::Valid(spec)), importers: None, created_ms: 1 };
    types::PutExport { service: Some(service.clone()), export: Some(export) }
}

/// The one endpoint of the service, at another address than last time; the change is of [`PAYLOAD`] bytes.
fn endpoint(service: &types::ServiceKey, number: u64) -> types::CatalogChange {
    let low = u32::try_from(number % (1 << 24)).unwrap_or_default();
    let port = |name: &str, port| types::PortTarget { name: name.to_owned(), port };
    let change = |padding: usize| {
        // None of them may be longer than 63.
        let text = |nth: usize| Some("z".repeat((padding + nth) / 3));
        let endpoint = types::Endpoint {
            id: "e-abcdefghij234".to_owned(),
            address: (0x0a00_0000 | low).to_be_bytes().to_vec(),
            ports: vec![port("http", 8080), port("metrics", 9090)],
            ready: true,
            locality: Some(types::Locality { region: text(0), zone: text(1) }),
            inbound_port: Some(15_008),
            hostname: text(2),
            ..Default::default()
        };
        let put = types::PutEndpoints { service: Some(service.clone()), endpoints: vec![endpoint] };
        types::CatalogChange { kind: Some(Change::PutEndpoints(put)) }
    };
    // Lengths take a byte or two themselves, so that the first guess may be a few bytes off.
    let mut padding = PAYLOAD.saturating_sub(change(0).encoded_len());
    while padding > 0 && change(padding).encoded_len() > PAYLOAD {
        padding -= 1;
    }
    change(padding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealane_core::command::CatalogChange;
    use sealane_proto::Wire;

    #[test]
    fn a_command_is_valid_and_of_the_size_that_is_told() {
        for number in [0, 1, 1 << 30] {
            let service =
                types::ServiceKey { namespace: "bench".into(), name: format!("bench-{:03}", number % 256) };
            let change = endpoint(&service, number);
            assert_eq!(change.encoded_len(), PAYLOAD);
            CatalogChange::from_wire(change).unwrap();
        }
    }
}
