//! The status API: what the federation knows, read-only, as JSON over HTTPS.
//!
//! Law: an answer is a projection of the state and of what this server measured; it decides nothing, and explanations
//! come from the same `compute` as the views. Every answer says how current it is; a server without a leader answers
//! from what it has and says so. All but /livez and /readyz need the certificate of an administrator or a reader.

mod cluster;
mod explain;
mod openapi;
mod service;
mod status;
pub mod types;

pub use openapi::document;

use crate::consensus::status::RaftStatus;
use crate::rpc::Serving;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use sealane_core::identity::Principal;
use sealane_core::state::State as Facts;
use sealane_core::time::Millis;
use sealane_trust::acceptor::Peer;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use types::{ApiError, ErrorCode, Freshness};

/// How long a consistent read may wait for a leader.
const CONSISTENT: Duration = Duration::from_secs(5);
/// Beyond this the replica's loop stands still, and nobody can say how current its state is.
const STALE: Duration = Duration::from_secs(1);

/// Readings at a time: views are computed on threads of their own, and streams come first.
pub const READS: usize = 8;
/// How long a reading may wait for its turn.
const TURN: Duration = Duration::from_secs(2);

/// The routes.
pub fn router(serving: Serving) -> Router {
    let api = Router::new()
        .route("/status", get(status::status))
        .route("/servers", get(status::servers))
        .route("/clusters", get(cluster::clusters))
        .route("/clusters/{name}", get(cluster::cluster))
        .route("/services", get(service::services))
        .route("/services/{namespace}/{name}", get(service::service))
        .route("/services/{namespace}/{name}/endpoints", get(service::endpoints))
        .route("/explain/{namespace}/{name}", get(explain::explain))
        .route("/openapi.json", get(openapi::openapi))
        .route_layer(middleware::from_fn_with_state(serving.clone(), authorize));
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .nest("/api/v1", api)
        .fallback(|| async { Refused::not_found("there is nothing at this path; see /api/v1/openapi.json") })
        .method_not_allowed_fallback(|| async {
            Refused(
                StatusCode::METHOD_NOT_ALLOWED,
                ErrorCode::MethodNotAllowed,
                "only GET is served here".into(),
            )
        })
        .with_state(serving)
}

/// An error as it is answered.
#[derive(Debug)]
pub(crate) struct Refused(StatusCode, ErrorCode, String);

impl Refused {
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Refused(StatusCode::NOT_FOUND, ErrorCode::NotFound, message.into())
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Refused(StatusCode::BAD_REQUEST, ErrorCode::Invalid, message.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused(status, code, message) = self;
        (status, Json(ApiError { code, message })).into_response()
    }
}

async fn authorize(State(serving): State<Serving>, request: Request, next: Next) -> Response {
    let verified = request.extensions().get::<Peer>().and_then(Peer::verified);
    let principal = verified.and_then(|v| v.spiffe_id.principal(&serving.trust_domain));
    match principal {
        Some(Principal::Admin(_) | Principal::Reader(_)) => next.run(request).await,
        _ => {
            let message = "the client certificate of an administrator or a reader is needed";
            Refused(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message.to_owned()).into_response()
        }
    }
}

/// It runs.
async fn livez() -> &'static str {
    "ok\n"
}

/// It has a leader and a federation, so that writes and current reads pass.
async fn readyz(State(serving): State<Serving>) -> Response {
    let raft = serving.replica.status().borrow().clone();
    let reason = if raft.ticked.elapsed() > STALE {
        "the replica stands still"
    } else if raft.leader.is_none() {
        "there is no leader"
    } else if !serving.replica.state().1.state.is_founded() {
        "the state has not arrived yet"
    } else {
        return "ok\n".into_response();
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}

#[derive(Debug, Deserialize)]
struct Consistency {
    #[serde(default)]
    consistent: bool,
}

/// What a read is answered from: one state, and how current it is.
pub(crate) struct Reading {
    pub(crate) serving: Serving,
    pub(crate) facts: Facts,
    pub(crate) raft: RaftStatus,
    pub(crate) freshness: Freshness,
    _turn: OwnedSemaphorePermit,
}

impl Reading {
    /// Makes an answer that takes a while, away from the threads that serve streams.
    pub(crate) async fn compute<T: Send + 'static>(
        self,
        answer: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<(T, Freshness), Refused> {
        let computed = tokio::task::spawn_blocking(move || (answer(&self), self.freshness.clone())).await;
        computed.map_err(|error| {
            tracing::error!(%error, "an answer could not be made");
            let message = "the answer could not be made: this is a defect, report it".to_owned();
            Refused(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, message)
        })
    }

    /// The time of the log, or this server's clock where it is later: for ages of what the log dates.
    pub(crate) fn now(&self) -> Millis {
        self.facts.meta.now.max(sealane_trust::clock::now())
    }
}

impl FromRequestParts<Serving> for Reading {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, serving: &Serving) -> Result<Self, Refused> {
        let Query(asked) = Query::<Consistency>::try_from_uri(&parts.uri)
            .map_err(|_| Refused::invalid("consistent: must be true or false"))?;
        if asked.consistent {
            serving.replica.read_index(Instant::now() + CONSISTENT).await.map_err(|e| {
                Refused(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, e.to_string())
            })?;
        }
        let busy =
            || Refused(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Busy, "too many requests at once".into());
        let turn = timeout(TURN, Arc::clone(&serving.reads).acquire_owned()).await;
        let turn = turn.ok().and_then(Result::ok).ok_or_else(busy)?;
        let serving = serving.clone();
        let (facts, raft) = (serving.state(), serving.replica.status().borrow().clone());
        let leader = raft.leader.map(|id| id.0);
        let age_ms = serving.leasing.current().map(|at| millis(at.elapsed()));
        let freshness = Freshness { revision: facts.meta.revision.to_string(), age_ms, leader };
        Ok(Reading { serving, facts, raft, freshness, _turn: turn })
    }
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC.
pub(crate) fn rfc3339(at: Millis) -> String {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
}

pub(crate) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

pub(crate) fn locality(of: &sealane_core::endpoint::Locality) -> types::Locality {
    let text = |name: &Option<sealane_core::name::TopologyName>| name.as_ref().map(ToString::to_string);
    types::Locality { region: text(&of.region), zone: text(&of.zone) }
}

#[cfg(test)]
mod tests;
