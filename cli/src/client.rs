//! The status API, as a client of any server.

use crate::context::{Context as AdminContext, Reach};
use crate::exit::Failure;
use anyhow::{Context, Result, anyhow};
use reqwest::StatusCode;
use sealane_federation::rest::types::{
    ApiError, Cluster, Clusters, Endpoints, ErrorCode, Explanation, LeaseState, OneCluster, OneService,
    Server, Servers, Services, Status,
};
use sealane_trust::tls::{ALPN_H2, ALPN_HTTP1};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long connecting to one server may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client that asks the servers of a context in turn, until one answers.
#[derive(Debug, Clone)]
pub struct StatusClient {
    context: AdminContext,
    http: reqwest::Client,
    consistent: bool,
}

impl StatusClient {
    /// A client for a context.
    ///
    /// # Errors
    /// When the TLS library refuses the context's identity.
    pub fn new(context: AdminContext) -> Result<Self> {
        let tls = (*context.tls(&[ALPN_H2, ALPN_HTTP1])).clone();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(CONNECT)
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .context("can not make a client")?;
        Ok(StatusClient { context, http, consistent: false })
    }

    /// The same, with or without asking the leader first.
    #[must_use]
    pub fn consistent(self, consistent: bool) -> Self {
        StatusClient { consistent, ..self }
    }

    /// The same, asking only the server with this gRPC address.
    ///
    /// # Errors
    /// When the context has no such server.
    pub fn only(mut self, grpc: &str) -> Result<Self> {
        self.context.keep_only(grpc)?;
        Ok(self)
    }

    /// The same, asking only the server that is reached there.
    #[must_use]
    pub fn at(mut self, reach: Reach) -> Self {
        self.context.move_to(reach);
        self
    }

    /// What the client knows of the federation.
    #[must_use]
    pub fn context(&self) -> &AdminContext {
        &self.context
    }

    /// Keeps where the servers are for the next time.
    ///
    /// # Errors
    /// When the context can not be written.
    pub fn remember(&mut self, servers: &[Server]) -> Result<bool> {
        let reach = |s: &Server| Some(Reach { grpc: s.address.clone()?, status: s.status_address.clone()? });
        self.context.remember(servers.iter().filter_map(reach).collect())
    }

    /// GET /api/v1/status.
    ///
    /// # Errors
    /// When no server answers. So for all the following.
    pub async fn status(&self) -> Result<Status> {
        self.get("status").await
    }

    /// GET /api/v1/servers.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn servers(&self) -> Result<Servers> {
        self.get("servers").await
    }

    /// GET /api/v1/clusters.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn clusters(&self) -> Result<Clusters> {
        self.get("clusters").await
    }

    /// GET /api/v1/clusters/NAME.
    ///
    /// # Errors
    /// When no server answers, or there is no such cluster.
    pub async fn cluster(&self, name: &str) -> Result<OneCluster> {
        self.get(&format!("clusters/{name}")).await
    }

    /// GET /api/v1/services.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn services(&self) -> Result<Services> {
        self.get("services").await
    }

    /// GET /api/v1/services/NAMESPACE/NAME.
    ///
    /// # Errors
    /// When no server answers, or there is no such service.
    pub async fn service(&self, service: &str) -> Result<OneService> {
        self.get(&format!("services/{service}")).await
    }

    /// GET /api/v1/services/NAMESPACE/NAME/endpoints?from=CLUSTER.
    ///
    /// # Errors
    /// When no server answers, or there is no such service or cluster.
    pub async fn endpoints(&self, service: &str, from: &str) -> Result<Endpoints> {
        self.get(&format!("services/{service}/endpoints?from={from}")).await
    }

    /// GET /api/v1/explain/NAMESPACE/NAME?from=CLUSTER.
    ///
    /// # Errors
    /// When no server answers, or there is no such service or cluster.
    pub async fn explain(&self, service: &str, from: &str) -> Result<Explanation> {
        self.get(&format!("explain/{service}?from={from}")).await
    }

    /// The clusters that a cluster's connections to a service can go to; none when there is no such service.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn chosen_clusters(&self, service: &str, from: &str) -> Result<BTreeSet<String>> {
        match self.endpoints(service, from).await {
            Ok(endpoints) => Ok(endpoints.candidates.into_iter().map(|c| c.cluster).collect()),
            Err(error) if matches!(error.downcast_ref(), Some(Failure::NotFound(_))) => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let mut tried = Vec::new();
        for server in self.context.servers() {
            match self.get_from(server, path).await {
                Err(Attempt::Next(error)) => {
                    tracing::info!(server = server.status, error = format!("{error:#}"), "no answer");
                    tried.push(format!("{} ({error:#})", server.status));
                }
                Err(Attempt::Final(error)) => return Err(error),
                Ok(answer) => return Ok(answer),
            }
        }
        Err(Failure::Unreachable(tried.join(", ")).into())
    }

    async fn get_from<T: DeserializeOwned>(&self, server: &Reach, path: &str) -> Result<T, Attempt> {
        let mark = if path.contains('?') { '&' } else { '?' };
        let consistent = if self.consistent { format!("{mark}consistent=true") } else { String::new() };
        let url = format!("https://{}/api/v1/{path}{consistent}", server.status);
        let response = self.http.get(url).send().await.map_err(|e| Attempt::Next(cause(e)))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|e| Attempt::Next(cause(e)))?;
        if status.is_success() {
            let parsed = serde_json::from_slice(&body);
            return parsed
                .context("the server's answer is not understood: is it of another version?")
                .map_err(Attempt::Final);
        }
        Err(refusal(status, &body))
    }
}

/// What became of asking one server.
enum Attempt {
    /// Another may do better.
    Next(anyhow::Error),
    /// No other will say anything else.
    Final(anyhow::Error),
}

fn refusal(status: StatusCode, body: &[u8]) -> Attempt {
    let Ok(error) = serde_json::from_slice::<ApiError>(body) else {
        return Attempt::Next(anyhow!("answered {status}"));
    };
    match error.code {
        ErrorCode::NotFound => Attempt::Final(Failure::NotFound(error.message).into()),
        ErrorCode::Unavailable | ErrorCode::Busy => Attempt::Next(anyhow!(error.message)),
        _ => Attempt::Final(Failure::Refused(error.message).into()),
    }
}

/// The innermost reason of a failed request: its outer ones say only that it failed, and where.
fn cause(error: reqwest::Error) -> anyhow::Error {
    let error = anyhow::Error::new(error.without_url());
    anyhow!("{}", error.root_cause())
}

/// Whether a cluster's lease is live.
#[must_use]
pub fn is_live(cluster: &Cluster) -> bool {
    cluster.lease.state == LeaseState::Live
}

/// Whether a cluster's lease is live and its catalog is whole.
#[must_use]
pub fn is_synced(cluster: &Cluster) -> bool {
    is_live(cluster) && cluster.session.as_ref().is_some_and(|s| s.synced)
}
