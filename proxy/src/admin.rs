//! The admin listener: liveness, readiness, metrics, what is in use and who talks to whom. Loopback by default; plain
//! HTTP; nothing secret in any answer. Where it listens on more than loopback, who comes from elsewhere gets what probes
//! and scrapers need and nothing more.

mod dump;

use crate::role::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at a time; more wait. With [`HEAD`] it bounds how long silent ones can keep a probe waiting.
const CONNECTIONS: usize = 512;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(2);
/// How long a connection may last: a scraper connects again.
const CONNECTION: Duration = Duration::from_secs(300);

/// What the listener shows; the context comes once there is an identity.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Set when the proxy has an identity and serves.
    pub(crate) context: OnceLock<Arc<Context>>,
    /// The counters, from the start.
    pub(crate) metrics: Arc<crate::telemetry::Metrics>,
    /// The end.
    pub(crate) drain: crate::drain::Drain,
}

impl Shown {
    /// Ready, or why not.
    fn ready(&self) -> Result<(), &'static str> {
        if self.drain.draining() {
            return Err("draining");
        }
        match self.context.get() {
            None => Err("no identity yet"),
            Some(context) if !context.current.load().configured() => Err("no configuration yet"),
            Some(_) => Ok(()),
        }
    }
}

/// Serves for ever: also while the proxy drains.
pub(crate) async fn serve(shown: Arc<Shown>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let shown = Arc::clone(&shown);
                let from = From::of(peer.ip());
                tokio::spawn(async move {
                    // A client that dallies is cut off; it lost nothing that it can not ask for again.
                    let _ = tokio::time::timeout(CONNECTION, connection(shown, stream, from)).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "can not accept an admin connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// On this host, or in this pod.
    Here,
    Elsewhere,
}

impl From {
    fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_loopback() { From::Here } else { From::Elsewhere }
    }
}

async fn connection(shown: Arc<Shown>, stream: TcpStream, from: From) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = if request.headers().contains_key(header::ORIGIN) {
            // Only a browser says so, on behalf of some page.
            text(StatusCode::FORBIDDEN, "not for web pages\n")
        } else {
            answer(&shown, from, request.method(), request.uri().path())
        };
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "admin connection ended with an error");
    }
}

fn answer(shown: &Shown, from: From, method: &Method, path: &str) -> Response<Full<Bytes>> {
    match (method, path) {
        (_, "/config" | "/connections" | "/drain") if from == From::Elsewhere => {
            text(StatusCode::FORBIDDEN, "only from this host, by a loopback address\n")
        }
        (&Method::GET, "/livez") => text(StatusCode::OK, "ok\n"),
        (&Method::GET, "/readyz") => match shown.ready() {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        (&Method::GET, "/metrics") => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            response(StatusCode::OK, kind, shown.metrics.text())
        }
        (&Method::GET, "/config") => match shown.context.get() {
            Some(context) => json(&dump::Config::of(context)),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "no identity yet\n"),
        },
        (&Method::GET, "/connections") => match shown.context.get() {
            Some(context) => json(&context.connections.dump()),
            None => json(&[(); 0]),
        },
        (&Method::POST, "/drain") => {
            shown.drain.begin();
            text(StatusCode::ACCEPTED, "draining\n")
        }
        (_, "/livez" | "/readyz" | "/metrics" | "/config" | "/connections" | "/drain") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n")
        }
        _ => {
            text(StatusCode::NOT_FOUND, "try /livez /readyz /metrics /config /connections, or POST /drain\n")
        }
    }
}

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(value) {
        Ok(body) => response(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Drain;

    #[test]
    fn what_is_in_use_and_the_drain_are_for_this_host_alone() {
        let metrics = Arc::new(crate::telemetry::Metrics::new());
        let shown = Shown { context: OnceLock::new(), metrics, drain: Drain::default() };
        let asked = |from, method: &Method, path| answer(&shown, from, method, path).status();
        for path in ["/config", "/connections"] {
            assert_eq!(asked(From::Elsewhere, &Method::GET, path), StatusCode::FORBIDDEN, "{path}");
            assert_ne!(asked(From::Here, &Method::GET, path), StatusCode::FORBIDDEN, "{path}");
        }
        assert_eq!(asked(From::Elsewhere, &Method::GET, "/livez"), StatusCode::OK);
        assert_eq!(asked(From::Elsewhere, &Method::POST, "/drain"), StatusCode::FORBIDDEN);
        assert!(!shown.drain.draining());
        assert_eq!(asked(From::Here, &Method::POST, "/drain"), StatusCode::ACCEPTED);
        assert!(shown.drain.draining());
    }

    #[test]
    fn this_host_is_loopback_by_any_name() {
        let of = |address: &str| From::of(address.parse().unwrap());
        for here in ["127.0.0.1", "127.21.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(of(here), From::Here, "{here}");
        }
        for elsewhere in ["10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "0.0.0.0"] {
            assert_eq!(of(elsewhere), From::Elsewhere, "{elsewhere}");
        }
    }
}
