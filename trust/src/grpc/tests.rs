use super::*;
use crate::acceptor::Peer;
use crate::fixture::{DAY, Federation};
use crate::revocation::Revocations;
use crate::tls::{
    ALPN_H2, ALPN_HTTP1, ClientAuth, FederationPeers, Identity, PeerPolicy, client_config, server_config,
};
use rustls::ClientConfig;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

const DEADLINE: Duration = Duration::from_secs(20);

/// What the server's side of a call without an end tells.
#[derive(Clone, Default)]
struct Endless {
    entered: CancellationToken,
    dropped: CancellationToken,
}

/// A body of one frame, or one that never ends and tells when it is dropped.
enum Answer {
    Text(Option<String>),
    Endless(#[expect(dead_code, reason = "it acts when it is dropped")] DropGuard),
}

impl Body for Answer {
    type Data = hyper::body::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Infallible>>> {
        match &mut *self {
            Answer::Text(text) => Poll::Ready(text.take().map(|t| Ok(hyper::body::Frame::data(t.into())))),
            Answer::Endless(_) => Poll::Pending,
        }
    }
}

async fn answer(request: Request<Incoming>, endless: Endless) -> Result<Response<Answer>, Infallible> {
    let peer = request.extensions().get::<Peer>().unwrap();
    let peer = peer.verified().map_or("nobody".to_owned(), |v| v.spiffe_id.to_string());
    let remote = request.extensions().get::<RemoteAddr>().unwrap().0.to_string();
    let body = match request.uri().path() {
        "/endless" => Answer::Endless(endless.dropped.drop_guard()),
        "/silent" => {
            endless.entered.cancel();
            let _guard = endless.dropped.drop_guard();
            std::future::pending().await
        }
        _ => Answer::Text(Some(peer.clone())),
    };
    Ok(Response::builder().header("peer", peer).header("remote", remote).body(body).unwrap())
}

struct Served {
    federation: Federation,
    addresses: Vec<String>,
    revocations: Revocations,
    shutdown: CancellationToken,
    endless: Endless,
    done: tokio::task::JoinHandle<()>,
}

async fn served(limits: Limits, versions: Versions, server: impl FnOnce(&Federation) -> Identity) -> Served {
    let federation = Federation::new();
    let policy = Arc::new(FederationPeers::matching(federation.bundle(), |_| true));
    let alpn: &[&[u8]] = if versions == Versions::Http2 { &[ALPN_H2] } else { &[ALPN_H2, ALPN_HTTP1] };
    let tls = server_config(&server(&federation), ClientAuth::Optional(policy), alpn);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = vec![listener.local_addr().unwrap().to_string()];
    let (revocations, shutdown) = (Revocations::none(), CancellationToken::new());
    let acceptor =
        Acceptor { listener, tls, limits, revocations: revocations.clone(), shutdown: shutdown.clone() };
    let endless = Endless::default();
    let told = endless.clone();
    let service = tower::service_fn(move |request| answer(request, told.clone()));
    let done = match versions {
        Versions::Http2 => tokio::spawn(serve(acceptor, service)),
        Versions::Negotiated => tokio::spawn(serve_http(acceptor, service)),
    };
    Served { federation, addresses, revocations, shutdown, endless, done }
}

async fn grpc_server(limits: Limits) -> Served {
    served(limits, Versions::Http2, |f| f.identity("server/1")).await
}

impl Served {
    fn client(&self, identity: Option<&Identity>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let policy: Arc<dyn PeerPolicy> = Arc::new(FederationPeers::servers(self.federation.bundle()));
        client_config(identity, policy, alpn)
    }

    fn channel(&self, path: &str) -> Channel {
        let identity = self.federation.identity(path);
        self.channel_of(&identity)
    }

    fn channel_of(&self, identity: &Identity) -> Channel {
        channel(&self.addresses, self.client(Some(identity), &[ALPN_H2]), &DialOptions::default()).unwrap()
    }
}

type Answered = Result<Response<tonic::body::Body>, String>;

async fn call(channel: &mut Channel, path: &str) -> Answered {
    let request = Request::builder().uri(path).body(tonic::body::Body::empty()).unwrap();
    let called = async { channel.ready().await?.call(request).await };
    tokio::time::timeout(DEADLINE, called).await.unwrap().map_err(|e: tonic::transport::Error| causes(&e))
}

fn header<'a>(answered: &'a Answered, name: &str) -> &'a str {
    answered.as_ref().unwrap().headers()[name].to_str().unwrap()
}

/// Waits for the end of a response that has none of its own.
async fn cut_off(answered: Answered) {
    let mut body = answered.unwrap().into_body();
    let next = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
    let frame = tokio::time::timeout(DEADLINE, next).await.expect("the stream ends");
    assert!(matches!(frame, Some(Err(_))), "by an error");
}

#[tokio::test]
async fn a_call_carries_its_peer_and_uses_one_connection() {
    let served = grpc_server(Limits::default()).await;
    let mut channel = served.channel("agent/west");
    let first = call(&mut channel, "/").await;
    assert_eq!(header(&first, "peer"), "spiffe://fed.example/agent/west");
    let second = call(&mut channel, "/").await;
    assert_eq!(header(&first, "remote"), header(&second, "remote"));
}

#[tokio::test]
async fn a_refused_server_is_named_in_the_causes() {
    let served = served(Limits::default(), Versions::Http2, |f| f.identity("agent/west")).await;
    let refused = call(&mut served.channel("agent/east"), "/").await.unwrap_err();
    assert!(refused.contains("spiffe://fed.example/agent/west, which is not accepted here"), "{refused}");
}

#[tokio::test]
async fn the_next_address_is_tried() {
    let served = grpc_server(Limits::default()).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let addresses = vec![gone, served.addresses[0].clone()];
    let tls = served.client(Some(&served.federation.identity("agent/west")), &[ALPN_H2]);
    let mut channel = channel(&addresses, tls, &DialOptions::default()).unwrap();
    assert_eq!(header(&call(&mut channel, "/").await, "peer"), "spiffe://fed.example/agent/west");
}

#[tokio::test]
async fn a_silent_address_costs_no_more_than_the_connect_timeout() {
    let served = grpc_server(Limits::default()).await;
    // It accepts, by its backlog, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = vec![silent.local_addr().unwrap().to_string(), served.addresses[0].clone()];
    let tls = served.client(Some(&served.federation.identity("agent/west")), &[ALPN_H2]);
    let options = DialOptions { connect_timeout: Duration::from_millis(300), ..DialOptions::default() };
    let mut channel = channel(&addresses, tls, &options).unwrap();
    assert!(call(&mut channel, "/").await.is_ok());
}

#[tokio::test]
async fn malformed_addresses_are_refused() {
    let served = grpc_server(Limits::default()).await;
    let make = |addresses: &[&str]| {
        let addresses: Vec<String> = addresses.iter().map(|a| (*a).to_owned()).collect();
        channel(&addresses, served.client(None, &[ALPN_H2]), &DialOptions::default()).map(|_| ())
    };
    assert_eq!(make(&[]), Err(ChannelError::Count(0)));
    for bad in ["fed.example", "fed.example:x", "fed example:1"] {
        assert_eq!(make(&[bad]), Err(ChannelError::BadAddress(bad.to_owned())));
    }
    assert_eq!(make(&["[::1]:7443", "127.0.0.1:1", "fed.example:7443"]), Ok(()));
}

#[tokio::test]
async fn a_long_stream_ends_by_revocation() {
    let served = grpc_server(Limits::default()).await;
    let stream = call(&mut served.channel("agent/west"), "/endless").await;
    served.revocations.set(|_| true);
    cut_off(stream).await;
    tokio::time::timeout(DEADLINE, served.endless.dropped.cancelled())
        .await
        .expect("the server forgets the stream");
    let refused = call(&mut served.channel("agent/west"), "/").await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_handler_that_waits_is_dropped_with_its_connection() {
    let served = grpc_server(Limits::default()).await;
    let mut channel = served.channel("agent/west");
    call(&mut channel, "/").await.unwrap();
    let (answered, ()) = tokio::join!(call(&mut channel, "/silent"), async {
        served.endless.entered.cancelled().await;
        served.revocations.set(|_| true);
    });
    assert!(answered.is_err());
    tokio::time::timeout(DEADLINE, served.endless.dropped.cancelled())
        .await
        .expect("the server forgets the handler");
}

#[tokio::test]
async fn a_long_stream_ends_with_the_clients_certificate() {
    let served = grpc_server(Limits::default()).await;
    let (issued, key) = served.federation.leaf("agent/west", Duration::from_secs(2));
    let identity = Identity::new(issued.chain, &key).unwrap();
    let mut channel = served.channel_of(&identity);
    cut_off(call(&mut channel, "/endless").await).await;
    let (renewed, key) = served.federation.leaf("agent/west", DAY);
    identity.replace(renewed.chain, &key).unwrap();
    assert!(call(&mut channel, "/").await.is_ok(), "the same channel goes on with the renewed one");
}

#[tokio::test]
async fn a_long_stream_ends_with_the_servers_certificate() {
    let served = served(Limits::default(), Versions::Http2, |f| {
        let (issued, key) = f.leaf("server/1", Duration::from_secs(2));
        Identity::new(issued.chain, &key).unwrap()
    })
    .await;
    cut_off(call(&mut served.channel("agent/west"), "/endless").await).await;
}

#[tokio::test]
async fn shutdown_ends_long_streams_at_the_deadline() {
    let served = grpc_server(Limits { drain: Duration::from_millis(200), ..Limits::default() }).await;
    let stream = call(&mut served.channel("agent/west"), "/endless").await;
    served.shutdown.cancel();
    tokio::time::timeout(DEADLINE, served.done).await.unwrap().unwrap();
    cut_off(stream).await;
}

#[tokio::test]
async fn shutdown_waits_for_nothing_when_connections_are_idle() {
    let served = grpc_server(Limits { drain: Duration::from_secs(3600), ..Limits::default() }).await;
    let mut channel = served.channel("agent/west");
    call(&mut channel, "/").await.unwrap();
    served.shutdown.cancel();
    tokio::time::timeout(DEADLINE, served.done).await.unwrap().unwrap();
}

#[tokio::test]
async fn http_1_and_2_are_served_by_what_was_agreed_on() {
    let served = served(Limits::default(), Versions::Negotiated, |f| f.identity("server/1")).await;
    let mut channel = served.channel("reader/me");
    assert_eq!(header(&call(&mut channel, "/").await, "peer"), "spiffe://fed.example/reader/me");

    for alpn in [&[ALPN_HTTP1][..], &[]] {
        let tcp = TcpStream::connect(&served.addresses[0]).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("ignored").unwrap();
        let connector = tokio_rustls::TlsConnector::from(served.client(None, alpn));
        let mut stream = connector.connect(name, tcp).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        // The server need not say goodbye in TLS for the response to be whole.
        let _ = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut text)).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("peer: nobody"), "{text}");
    }
}

#[tokio::test]
async fn a_silent_http_1_client_is_dropped() {
    let limits = Limits { keepalive_timeout: Duration::from_millis(200), ..Limits::default() };
    let served = served(limits, Versions::Negotiated, |f| f.identity("server/1")).await;
    let tcp = TcpStream::connect(&served.addresses[0]).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("ignored").unwrap();
    let connector = tokio_rustls::TlsConnector::from(served.client(None, &[ALPN_HTTP1]));
    let mut stream = connector.connect(name, tcp).await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("it is dropped");
}
