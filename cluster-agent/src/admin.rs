//! The admin listener, plain HTTP: `/livez`, `/readyz`, `/metrics`, and `/status` for who asks from loopback.

use crate::metrics::Metrics;
use crate::status::Reporter;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at a time; more wait. With [`HEAD`] it bounds how long silent ones can keep a probe waiting.
const CONNECTIONS: usize = 512;
/// How long a request's head may take, and a whole connection may last.
const HEAD: Duration = Duration::from_secs(2);
const CONNECTION: Duration = Duration::from_secs(30);

/// What the answers are made of.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The status.
    pub reporter: Reporter,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// Serves until stopped.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "can not accept an admin connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Without room the connection is closed at once: nobody waits for an answer that does not come.
        if let Ok(place) = room.clone().try_acquire_owned() {
            let admin = admin.clone();
            tokio::spawn(async move {
                let _place = place;
                let served = tokio::time::timeout(CONNECTION, connection(stream, peer.ip(), admin)).await;
                if let Ok(Err(error)) = served {
                    tracing::debug!(%error, "admin connection ended with an error");
                }
            });
        }
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, admin: Admin) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = match request.uri().path() {
            path if is_kept_from(peer, path) => {
                let why = "only from this host, by a loopback address\n".to_owned();
                text(StatusCode::FORBIDDEN, "text/plain", why)
            }
            path => admin.answer(request.method(), path),
        };
        async move { Ok::<_, Infallible>(answer) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// Probes and scrapers come from elsewhere; who is whom is told on this host, or in this pod, alone.
fn is_kept_from(peer: IpAddr, path: &str) -> bool {
    path == "/status" && !peer.to_canonical().is_loopback()
}

impl Admin {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned());
        }
        match path {
            "/livez" => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
            "/readyz" => match self.reporter.not_ready() {
                None => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{why}\n")),
            },
            "/status" => match serde_json::to_string_pretty(&self.reporter.report()) {
                Ok(body) => text(StatusCode::OK, "application/json", body + "\n"),
                Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{e}\n")),
            },
            "/metrics" => {
                let end = self.reporter.store.identity().current().not_after.0;
                let exports = self.reporter.catalog.borrow().as_ref().map_or(0, |c| c.shards.len());
                match self.metrics.text(&self.reporter.report(), end, exports) {
                    Ok(body) => text(
                        StatusCode::OK,
                        "application/openmetrics-text; version=1.0.0; charset=utf-8",
                        body,
                    ),
                    Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{e}\n")),
                }
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "text/plain",
                "try /livez, /readyz, /metrics or /status\n".to_owned(),
            ),
        }
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_for_this_host_alone() {
        for here in ["127.0.0.1", "127.21.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(!is_kept_from(here.parse().unwrap(), "/status"), "{here}");
        }
        for elsewhere in ["10.0.0.1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(is_kept_from(elsewhere.parse().unwrap(), "/status"), "{elsewhere}");
            assert!(!is_kept_from(elsewhere.parse().unwrap(), "/metrics"), "{elsewhere}");
        }
    }
}
