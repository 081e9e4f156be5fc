//! The admin listener: liveness, readiness, metrics, what is in use and who talks to whom. Loopback by default; plain
//! HTTP; nothing secret in any answer.

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
            Ok((stream, _)) => {
                let shown = Arc::clone(&shown);
                tokio::spawn(async move {
                    // A client that dallies is cut off; it lost nothing that it can not ask for again.
                    let _ = tokio::time::timeout(CONNECTION, connection(shown, stream)).await;
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

async fn connection(shown: Arc<Shown>, stream: TcpStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = if request.headers().contains_key(header::ORIGIN) {
            // Only a browser says so, on behalf of some page.
            text(StatusCode::FORBIDDEN, "not for web pages\n")
        } else {
            answer(&shown, request.method(), request.uri().path())
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

fn answer(shown: &Shown, method: &Method, path: &str) -> Response<Full<Bytes>> {
    match (method, path) {
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
