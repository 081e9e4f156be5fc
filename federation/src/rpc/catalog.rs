//! The stream by which an agent publishes its cluster's catalog.

use super::Serving;
use super::export::{Export, Opened};
use super::streams::Streams;
use crate::metrics::Call;
use sealane_core::command::Action;
use sealane_core::identity::{ClusterId, SessionId};
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::catalog_server::Catalog;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Answers on their way into one connection: small messages, and the client reads them or waits itself.
const ANSWERS: usize = 64;

/// Serves [`Catalog`].
#[derive(Debug, Clone)]
pub struct CatalogService {
    serving: Serving,
    streams: Streams,
}

impl CatalogService {
    /// Serves with these parts.
    #[must_use]
    pub fn new(serving: Serving) -> Self {
        CatalogService { serving, streams: Streams::default() }
    }
}

#[tonic::async_trait]
impl Catalog for CatalogService {
    type ExportStream = ReceiverStream<Result<pb::ExportReply, Status>>;

    async fn export(
        &self,
        request: Request<Streaming<pb::ExportRequest>>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let agent = self.serving.agent(&request)?;
        let place = self.streams.enter(&agent)?;
        let (answers, stream) = mpsc::channel(ANSWERS);
        let serving = self.serving.clone();
        let guard = serving.metrics.stream(Call::Export);
        let requests = request.into_inner();
        tokio::spawn(async move {
            let _ends_with_it = (guard, place);
            let (cluster, id, opened) = (agent.name.clone(), agent.id, Opened::default());
            tokio::select! {
                ended = Export::new(serving.clone(), agent, requests, answers.clone(), opened.clone()).run() => {
                    if let Err(status) = ended {
                        tracing::info!(%cluster, reason = status.message(), "export stream ended");
                        serving.metrics.error(Call::Export);
                        // A client that is gone needs no status.
                        let _ = answers.try_send(Err(status));
                    }
                }
                () = answers.closed() => {}
            }
            drop(answers);
            if let Some(session) = opened.get() {
                close(&serving, id, *session).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Says in the log that this session's stream ended, so that a restarted agent need not wait for the lease's end. An
/// agent that lives has the way back under its instance in any case, so a server that shuts down says nothing; where
/// there is no leader the lease's end says it.
async fn close(serving: &Serving, cluster: ClusterId, session: SessionId) {
    let machine = serving.replica.state();
    let current = machine.1.state.clusters.get(&cluster).and_then(|c| c.session.as_ref());
    let open = current.is_some_and(|current| current.id == session && !current.closed);
    if !open || serving.drain.is_cancelled() {
        return;
    }
    drop(machine);
    if let Err(error) = serving.writer.write(None, Action::Close { cluster, session }).await {
        tracing::debug!(%cluster, %session, %error, "the end of a session was not written");
    }
}
