//! A plain HTTP/1.1 client of one request a connection: each request takes the road anew.

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// The header whose value an app gives back.
pub const MARKER: &str = "x-sealane-marker";
/// How long one request may take in all.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body of a good answer, parsed as JSON.
    ///
    /// # Errors
    /// When the status is not 2xx or the body is no such JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        if !(200..300).contains(&self.status) {
            bail!("answered {}: {}", self.status, String::from_utf8_lossy(&self.body));
        }
        serde_json::from_slice(&self.body).context("the answer is not the JSON that was expected")
    }
}

/// GET without anything.
///
/// # Errors
/// When there is no connection or no whole answer in time.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    request(Method::GET, address, path, None, TIMEOUT).await
}

/// GET with a marker, within a time.
///
/// # Errors
/// When there is no connection or no whole answer in time.
pub async fn ask(address: SocketAddr, marker: &str, timeout: Duration) -> Result<Answer> {
    request(Method::GET, address, "/", Some(marker), timeout).await
}

/// POST of nothing.
///
/// # Errors
/// When there is no connection or no whole answer in time.
pub async fn post(address: SocketAddr, path: &str) -> Result<Answer> {
    request(Method::POST, address, path, None, TIMEOUT).await
}

/// One connection that is kept open, for request after request.
#[derive(Debug)]
pub struct Lasting {
    host: String,
    sender: hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Lasting {
    /// Connects.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("can not connect")?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        Ok(Lasting { host: address.to_string(), sender, connection: tokio::spawn(connection) })
    }

    /// GET with a marker, on this connection and no other.
    ///
    /// # Errors
    /// When the connection is gone, or there is no whole answer in time.
    pub async fn ask(&mut self, marker: &str) -> Result<Answer> {
        let request = Request::builder().uri("/").header("host", &self.host).header(MARKER, marker);
        let request = request.body(Empty::<Bytes>::new()).context("bad request")?;
        let exchange = async {
            self.sender.ready().await?;
            whole(self.sender.send_request(request).await?).await
        };
        tokio::time::timeout(TIMEOUT, exchange).await.context("no answer in time")?
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn whole(response: hyper::Response<hyper::body::Incoming>) -> Result<Answer> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|e| anyhow::anyhow!("the answer broke off: {e}"))?.to_bytes().to_vec();
    Ok(Answer { status, body })
}

async fn request(
    method: Method,
    address: SocketAddr,
    path: &str,
    marker: Option<&str>,
    timeout: Duration,
) -> Result<Answer> {
    let exchange = exchange(method, address, path, marker);
    tokio::time::timeout(timeout, exchange)
        .await
        .with_context(|| format!("no answer from {address}{path} within {timeout:?}"))?
        .with_context(|| format!("no answer from {address}{path}"))
}

async fn exchange(method: Method, address: SocketAddr, path: &str, marker: Option<&str>) -> Result<Answer> {
    let stream = TcpStream::connect(address).await.context("can not connect")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::builder().method(method).uri(path).header("host", address.to_string());
    request = request.header("connection", "close");
    if let Some(marker) = marker {
        request = request.header(MARKER, marker);
    }
    let request = request.body(Empty::<Bytes>::new()).context("bad request")?;
    let answer = async { whole(sender.send_request(request).await?).await };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            // The connection may end before the answer was picked up.
            match tokio::time::timeout(Duration::from_secs(1), answer).await {
                Ok(answer) => answer,
                Err(_) => { ended?; bail!("the connection ended without an answer") }
            }
        }
    }
}
