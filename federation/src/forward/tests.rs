//! Against a leader that says what each test has it say.

use super::*;
use sealane_core::command::CatalogError;
use sealane_proto::peer::v1::peer_server::{Peer, PeerServer};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

type Heard = Streaming<pb::ForwardBatch>;
type Answers = mpsc::Sender<Result<pb::ForwardedBatch, Status>>;

/// Hands every stream of commands to the test.
struct Leader(mpsc::Sender<(Heard, Answers)>);

#[tonic::async_trait]
impl Peer for Leader {
    type ForwardStream = ReceiverStream<Result<pb::ForwardedBatch, Status>>;

    async fn raft(&self, _: Request<Streaming<pb::RaftBatch>>) -> Result<Response<pb::RaftAck>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn snapshot(
        &self,
        _: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotAck>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn forward(&self, request: Request<Heard>) -> Result<Response<Self::ForwardStream>, Status> {
        let (answers, stream) = mpsc::channel(4);
        self.0
            .send((request.into_inner(), answers))
            .await
            .map_err(|_| Status::aborted("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// A forwarder, and what the leader gets of it.
async fn bench() -> (Arc<Forwarder>, mpsc::Receiver<(Heard, Answers)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (streams, heard) = mpsc::channel(4);
    let server = Server::builder().add_service(PeerServer::new(Leader(streams)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let dial = move |_| Some(Endpoint::from_shared(address.clone()).unwrap().connect_lazy());
    (Arc::new(Forwarder::new(Arc::new(dial))), heard)
}

fn write(forwarder: &Arc<Forwarder>, command: impl Into<Bytes>) -> tokio::task::JoinHandle<Outcome> {
    let (forwarder, command) = (Arc::clone(forwarder), command.into());
    tokio::spawn(async move { forwarder.forward(ServerId(1), command).await })
}

/// Reads until so many commands have come.
async fn take(heard: &mut Heard, count: usize) -> Vec<pb::Forward> {
    let mut commands = Vec::new();
    while commands.len() < count {
        let batch = timeout(Duration::from_secs(10), heard.message()).await.expect("in time");
        commands.extend(batch.unwrap().expect("the stream goes on").commands);
    }
    commands
}

/// The index says which command it was.
fn committed(number: u64, index: u64) -> pb::Forwarded {
    let reply = Reply::Catalog(Err(CatalogError::Fenced)).encode().into();
    pb::Forwarded { number, kind: Some(Kind::Committed(pb::Committed { index, reply })) }
}

#[tokio::test]
async fn commands_keep_their_order_and_each_gets_its_own_answer() {
    let (forwarder, mut streams) = bench().await;
    // Polled once, in this order: their places are taken.
    let mut writes: Vec<_> =
        (0..300u32).map(|n| Box::pin(forwarder.forward(ServerId(1), n.to_string().into()))).collect();
    for write in &mut writes {
        assert!(futures::poll!(write).is_pending());
    }
    let (mut heard, answers) = streams.recv().await.unwrap();
    let commands = take(&mut heard, 300).await;
    let index = |f: &pb::Forward| std::str::from_utf8(&f.command).unwrap().parse::<u64>().unwrap();
    assert!(commands.iter().map(index).eq(0..300), "in the order in which they were written");
    let outcomes = commands.iter().rev().map(|f| committed(f.number, index(f))).collect();
    answers.send(Ok(pb::ForwardedBatch { outcomes })).await.unwrap();
    for (n, write) in (0..300).zip(writes) {
        assert_eq!(write.await.unwrap().index, n);
    }
}

#[tokio::test]
async fn every_outcome_is_told_as_what_it_is() {
    let (forwarder, mut streams) = bench().await;
    let kinds = [
        (Some(Kind::NotLeader(pb::NotLeader { leader: None })), WriteError::NoLeader),
        (Some(Kind::Busy(pb::Busy {})), WriteError::Busy),
        (Some(Kind::Unknown(pb::Unknown {})), WriteError::Unknown),
        (Some(Kind::Refused(pb::Refused { reason: "no".into() })), WriteError::Refused("no".into())),
        (Some(Kind::Committed(pb::Committed { index: 1, reply: "no reply".into() })), WriteError::Unknown),
        (None, WriteError::Unknown),
    ];
    let first = write(&forwarder, "x");
    let (mut heard, answers) = streams.recv().await.unwrap();
    let number = take(&mut heard, 1).await[0].number;
    // Nobody waits for that one; it is passed over.
    let outcomes = vec![committed(number + 1_000, 1), committed(number, 5)];
    answers.send(Ok(pb::ForwardedBatch { outcomes })).await.unwrap();
    assert_eq!(first.await.unwrap().unwrap().index, 5);
    for (kind, expected) in kinds {
        let written = write(&forwarder, "x");
        let number = take(&mut heard, 1).await[0].number;
        let outcomes = vec![pb::Forwarded { number, kind }];
        answers.send(Ok(pb::ForwardedBatch { outcomes })).await.unwrap();
        assert_eq!(written.await.unwrap(), Err(expected));
    }
}

#[tokio::test]
async fn what_a_broken_stream_had_sent_is_unknown_and_the_next_command_opens_another() {
    let (forwarder, mut streams) = bench().await;
    let sent = write(&forwarder, "sent");
    let (mut heard, answers) = streams.recv().await.unwrap();
    take(&mut heard, 1).await;
    drop((heard, answers));
    assert_eq!(sent.await.unwrap(), Err(WriteError::Unknown));
    // The former stream may not have noticed yet that it ended.
    for _ in 0..100 {
        let again = write(&forwarder, "again");
        let opened = timeout(Duration::from_millis(200), streams.recv()).await;
        let Ok(Some((mut heard, answers))) = opened else { continue };
        let number = take(&mut heard, 1).await[0].number;
        let outcomes = vec![committed(number, 7)];
        answers.send(Ok(pb::ForwardedBatch { outcomes })).await.unwrap();
        assert_eq!(again.await.unwrap().unwrap().index, 7);
        return;
    }
    panic!("no other stream was opened");
}

#[tokio::test]
async fn what_was_never_sent_is_told_so() {
    let dial = |_| Some(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
    let forwarder = Arc::new(Forwarder::new(Arc::new(dial)));
    assert_eq!(write(&forwarder, "x").await.unwrap(), Err(WriteError::NoLeader));
    let unknown = Arc::new(Forwarder::new(Arc::new(|_| None)));
    assert_eq!(write(&unknown, "x").await.unwrap(), Err(WriteError::NoLeader));
}

#[tokio::test]
async fn writers_whose_patience_ended_make_room_though_the_leader_never_answers() {
    let (forwarder, mut streams) = bench().await;
    let mut waiting: Vec<_> = (0..UNDER_WAY).map(|_| write(&forwarder, "x")).collect();
    let (mut heard, _answers) = streams.recv().await.unwrap();
    let mut taken = 0;
    // The queue is shorter than what may be under way: those who found it full come again.
    while taken < UNDER_WAY {
        let batch = timeout(Duration::from_secs(5), heard.message()).await;
        taken += batch.expect("in time").unwrap().unwrap().commands.len();
        let busy = waiting.iter().filter(|w| w.is_finished()).count();
        waiting.retain(|w| !w.is_finished());
        waiting.extend((0..busy).map(|_| write(&forwarder, "x")));
    }
    for write in waiting.drain(..) {
        write.abort();
    }
    let late = write(&forwarder, "late");
    let batch = timeout(Duration::from_secs(10), heard.message()).await.expect("there is room again");
    assert_eq!(batch.unwrap().unwrap().commands.last().unwrap().command, "late");
    late.abort();
}
