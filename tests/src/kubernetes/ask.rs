//! Whether an API server answers: one request over TLS, nothing that a client library would hide.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const MAX_ANSWER: u64 = 64 * 1024;

/// The status of a GET without a client's certificate, and what came with it.
///
/// # Errors
/// When there is no answer, or not from who bears a certificate of this authority.
pub async fn get(server: SocketAddr, authority: &Path, path: &str) -> Result<(u16, String)> {
    tokio::time::timeout(TIMEOUT, exchange(server, authority, path))
        .await
        .with_context(|| format!("no answer from {server}{path} within {TIMEOUT:?}"))?
        .with_context(|| format!("no answer from {server}{path}"))
}

/// An error unless the API server says that it is ready.
///
/// # Errors
/// When it is not, with what it said.
pub async fn ready(server: SocketAddr, authority: &Path) -> Result<()> {
    let (status, said) = get(server, authority, "/readyz").await?;
    anyhow::ensure!(status == 200, "{server} answered {status}: {said}");
    Ok(())
}

async fn exchange(server: SocketAddr, authority: &Path, path: &str) -> Result<(u16, String)> {
    let connector = TlsConnector::from(Arc::new(trusting(authority)?));
    let stream = TcpStream::connect(server).await?;
    let mut stream = connector.connect(ServerName::from(server.ip()), stream).await?;
    // Of this version, the end of the answer is the end of the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let _unclean_end = stream.take(MAX_ANSWER).read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer broke off")?;
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}

fn trusting(authority: &Path) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let text = std::fs::read(authority).with_context(|| format!("can not read {}", authority.display()))?;
    for certificate in sealane_trust::pem::certificates(&text)? {
        roots.add(certificate)?;
    }
    let builder = ClientConfig::builder_with_provider(sealane_trust::tls::provider());
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}
