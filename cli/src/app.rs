//! The small application of the demo and the tests: it says who it is and gives back the request's marker.

use crate::local::http::MARKER;
use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at a time; more wait in the listener's queue.
const CONNECTIONS: usize = 256;

/// What the application answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Its name: cluster and pod.
    pub name: String,
    /// Its cluster.
    pub cluster: String,
    /// The request's marker, if it had one.
    pub marker: Option<String>,
}

/// Arguments of `sealane app`.
#[derive(Debug, clap::Args)]
pub struct AppArgs {
    /// Where to listen.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Who it says it is: CLUSTER/POD.
    #[arg(long)]
    pub name: String,
}

/// Serves until the process ends.
///
/// # Errors
/// When the address can not be listened on.
pub async fn run(args: AppArgs) -> Result<()> {
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("can not listen on {}", args.listen))?;
    let cluster = args.name.split('/').next().unwrap_or_default().to_owned();
    let greeting = Arc::new(Greeting { name: args.name, cluster, marker: None });
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    tracing::info!(listen = %args.listen, "ready");
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.context("the semaphore is never closed")?;
        let Ok((stream, _)) = listener.accept().await else { continue };
        let greeting = Arc::clone(&greeting);
        tokio::spawn(async move {
            serve(stream, greeting).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, greeting: Arc<Greeting>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&greeting, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended with an error");
    }
}

fn answer(greeting: &Greeting, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let marker = request.headers().get(MARKER).and_then(|m| m.to_str().ok()).map(str::to_owned);
    let greeting = Greeting { marker, ..greeting.clone() };
    let body = serde_json::to_vec(&greeting).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}
