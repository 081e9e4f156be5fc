//! gRPC and HTTP over the [`Acceptor`], and channels to such a server.
//!
//! Every request carries as extensions: [`Peer`](crate::acceptor::Peer), [`RemoteAddr`] and tonic's `TcpConnectInfo`. A call's deadline is
//! the caller's affair: it resets the stream, which drops the handler.

mod channel;

pub use channel::{ChannelError, DialOptions, MAX_ADDRESSES, channel};

use crate::acceptor::{Accepted, Acceptor, Limits};
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use tonic::transport::server::TcpConnectInfo;
use tower::{Service, ServiceExt};

/// Where a request's connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteAddr(pub SocketAddr);

/// Which HTTP versions a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Versions {
    Http2,
    /// The one that the handshake agreed on; HTTP/1.1 when it agreed on none.
    Negotiated,
}

/// Serves gRPC (HTTP/2 only) until shutdown and drain: a [`tonic::service::Routes`], or any router of its kind.
///
/// The acceptor's configuration should offer [`crate::tls::ALPN_H2`] and nothing else.
pub async fn serve<S, B>(acceptor: Acceptor, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    acceptor.run(move |accepted| connection(accepted, service.clone(), Versions::Http2)).await;
}

/// Serves HTTP/1.1 and HTTP/2 until shutdown and drain, such as an `axum::Router`.
pub async fn serve_http<S, B>(acceptor: Acceptor, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    acceptor.run(move |accepted| connection(accepted, service.clone(), Versions::Negotiated)).await;
}

async fn connection<S, B>(accepted: Accepted, service: S, versions: Versions)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Accepted { stream, peer, remote, local, drain, limits } = accepted;
    let service = service_fn(move |mut request: Request<Incoming>| {
        let extensions = request.extensions_mut();
        extensions.insert(peer.clone());
        extensions.insert(RemoteAddr(remote));
        extensions.insert(TcpConnectInfo { local_addr: Some(local), remote_addr: Some(remote) });
        service.clone().oneshot(request)
    });
    let http2 =
        versions == Versions::Http2 || stream.get_ref().1.alpn_protocol() == Some(crate::tls::ALPN_H2);
    let builder = builder(&limits, http2);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%remote, error, "connection ended with an error");
    }
}

/// One version and no guessing by the first bytes, which a client could withhold for ever.
fn builder(limits: &Limits, http2: bool) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.keepalive)
        .keep_alive_timeout(limits.keepalive_timeout)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_list)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.keepalive_timeout)
        // hyper takes no less than 8 KiB.
        .max_buf_size(usize::try_from(limits.header_list).unwrap_or(usize::MAX).max(8192));
    if http2 { builder.http2_only() } else { builder.http1_only() }
}

/// An error with all its causes on one line: transport errors keep what matters (such as a refused certificate) in
/// their sources.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = describe(error);
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = describe(cause);
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// The error's own text; what a verifier of ours said rather than how rustls wraps it.
fn describe(error: &(dyn Error + 'static)) -> String {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let tls = match inner {
        Some(inner) => inner.downcast_ref::<rustls::Error>(),
        None => error.downcast_ref::<rustls::Error>(),
    };
    match tls {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(refusal))) => {
            refusal.0.to_string()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
