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

/// Which HTTP versions a connection may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Versions {
    Http2,
    Both,
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
    acceptor.run(move |accepted| connection(accepted, service.clone(), Versions::Both)).await;
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
    let builder = builder(&limits, versions);
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

fn builder(limits: &Limits, versions: Versions) -> Builder<TokioExecutor> {
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
    if versions == Versions::Http2 {
        return builder.http2_only();
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.keepalive_timeout)
        // hyper takes no less than 8 KiB.
        .max_buf_size(usize::try_from(limits.header_list).unwrap_or(usize::MAX).max(8192));
    builder
}

#[cfg(test)]
mod tests;
