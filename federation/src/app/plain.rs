//! The metrics over plain HTTP, for a scraper on the same machine: few connections, one kind of request.

use crate::rpc::Serving;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Connections at a time; more wait. With [`HEAD`] it bounds how long silent ones can keep a scraper waiting.
const CONNECTIONS: usize = 512;
/// How long one may last.
const LIFE: Duration = Duration::from_secs(60);
const HEAD: Duration = Duration::from_secs(2);

/// Serves until the token is cancelled.
pub(super) async fn serve(listener: TcpListener, serving: Serving, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let serving = serving.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let response = answer(&serving, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(16 * 1024);
            // Whatever ends it, the scraper comes again.
            let _ = timeout(LIFE, http.serve_connection(TokioIo::new(stream), service)).await;
        });
    }
}

fn answer(serving: &Serving, request: &Request<Incoming>) -> Response<axum::body::Body> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, scrape(serving)),
        (&Method::GET, "/livez") => (StatusCode::OK, "ok\n".to_owned()),
        (_, "/metrics" | "/livez") => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => (StatusCode::NOT_FOUND, "only /metrics and /livez are here\n".to_owned()),
    };
    let mut response = Response::new(axum::body::Body::from(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn scrape(serving: &Serving) -> String {
    let pki = &serving.pki;
    serving.metrics.certificates(pki.identity.current().not_after, pki.issuer.not_after());
    let raft = serving.replica.status().borrow().clone();
    let suspected = serving.leasing.suspected().is_some();
    serving.metrics.scrape(&raft, &serving.replica.state().1.state, serving.publisher.counts(), suspected)
}
