//! The stream by which an agent publishes its cluster's catalog.

use super::Serving;
use super::export::Export;
use super::streams::Streams;
use crate::metrics::Call;
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
            let cluster = agent.name.clone();
            tokio::select! {
                ended = Export::new(serving.clone(), agent, requests, answers.clone()).run() => {
                    if let Err(status) = ended {
                        tracing::info!(%cluster, reason = status.message(), "export stream ended");
                        serving.metrics.error(Call::Export);
                        // A client that is gone needs no status.
                        let _ = answers.try_send(Err(status));
                    }
                }
                () = answers.closed() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
