use super::*;
use crate::clock;
use crate::fixture::{DAY, Federation, id};
use crate::issue::Validity;
use crate::tls::{ALPN_H2, ClientAuth, FederationPeers, Identity, PeerPolicy, client_config, server_config};
use crate::verify::Expiry;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use sealane_core::time::Millis;
use std::net::IpAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long anything in these tests may take before it counts as not happening.
const DEADLINE: Duration = Duration::from_secs(20);

struct Served {
    federation: Federation,
    address: SocketAddr,
    revocations: Revocations,
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<()>,
}

/// A server that greets with who it thinks the peer is, and then holds the connection until it is asked to drain or the peer
/// leaves.
async fn serve(limits: Limits) -> Served {
    let federation = Federation::new();
    let policy =
        FederationPeers::matching(federation.bundle(), |_| true).with_expiry(Expiry::Grace(30 * DAY));
    let tls =
        server_config(&federation.identity("server/1"), ClientAuth::Optional(Arc::new(policy)), &[ALPN_H2]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (revocations, shutdown) = (Revocations::none(), CancellationToken::new());
    let acceptor =
        Acceptor { listener, tls, limits, revocations: revocations.clone(), shutdown: shutdown.clone() };
    let done = tokio::spawn(acceptor.run(greet));
    Served { federation, address, revocations, shutdown, done }
}

async fn greet(mut accepted: Accepted) {
    let greeting = match &accepted.peer {
        Peer::Anonymous => "anonymous".to_owned(),
        Peer::Expired(v) => format!("expired {}", v.spiffe_id),
        Peer::Verified(v) => format!("verified {}", v.spiffe_id),
    };
    let sent = async {
        accepted.stream.write_all(format!("{greeting}\n").as_bytes()).await?;
        accepted.stream.flush().await
    };
    if sent.await.is_err() {
        return;
    }
    let mut byte = [0; 1];
    tokio::select! {
        () = accepted.drain.cancelled() => {}
        _ = accepted.stream.read(&mut byte) => {}
    }
    // Whether the farewell arrives is what the tests look at.
    let _ = accepted.stream.shutdown().await;
}

impl Served {
    fn client(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        let policy: Arc<dyn PeerPolicy> = Arc::new(FederationPeers::servers(self.federation.bundle()));
        client_config(identity, policy, &[ALPN_H2])
    }

    async fn dial(&self, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        self.dial_from(config, "127.0.0.1".parse().unwrap()).await
    }

    async fn dial_from(&self, config: Arc<ClientConfig>, from: IpAddr) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = socket.connect(self.address).await?;
        TlsConnector::from(config).connect(ServerName::try_from("ignored").unwrap(), stream).await
    }

    /// Connects and reads the greeting; an error when the server ended the connection instead.
    async fn greeted(&self, config: Arc<ClientConfig>) -> io::Result<(TlsStream<TcpStream>, String)> {
        let mut stream = self.dial(config).await?;
        let greeting = line(&mut stream).await?;
        Ok((stream, greeting))
    }
}

async fn line(stream: &mut TlsStream<TcpStream>) -> io::Result<String> {
    let mut text = String::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return Ok(text),
            byte => text.push(char::from(byte)),
        }
    }
}

/// Waits until the server ends the connection.
async fn ended(stream: &mut TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    // An orderly end and a reset are both an end.
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("the connection ends");
}

#[tokio::test]
async fn a_handler_knows_who_calls() {
    let served = serve(Limits::default()).await;
    let agent = served.federation.identity("agent/west");
    let (_a, greeting) = served.greeted(served.client(Some(&agent))).await.unwrap();
    assert_eq!(greeting, "verified spiffe://fed.example/agent/west");
    let (_b, greeting) = served.greeted(served.client(None)).await.unwrap();
    assert_eq!(greeting, "anonymous");
}

#[tokio::test]
async fn an_expired_certificate_in_grace_is_called_expired_and_does_not_stay() {
    let served = serve(Limits { expired_peer: Duration::from_millis(300), ..Limits::default() }).await;
    let now = clock::now();
    let past = Validity { not_before: Millis(now.0 - 600_000), not_after: Millis(now.0 - 300_000) };
    let (issued, key) = served.federation.leaf_within("agent/west", past);
    let identity = Identity::new(issued.chain, &key).unwrap();
    let (mut stream, greeting) = served.greeted(served.client(Some(&identity))).await.unwrap();
    assert_eq!(greeting, "expired spiffe://fed.example/agent/west");
    ended(&mut stream).await;
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let served = serve(Limits::default()).await;
    let (issued, key) = served.federation.leaf("agent/west", Duration::from_secs(2));
    let identity = Identity::new(issued.chain, &key).unwrap();
    let (mut stream, greeting) = served.greeted(served.client(Some(&identity))).await.unwrap();
    assert_eq!(greeting, "verified spiffe://fed.example/agent/west");
    ended(&mut stream).await;
    assert!(clock::now() >= issued.not_after, "and not before");
}

#[tokio::test]
async fn a_revoked_peer_is_cut_off_and_stays_out() {
    let served = serve(Limits::default()).await;
    let (west, east) = (served.federation.identity("agent/west"), served.federation.identity("agent/east"));
    let (mut cut, _) = served.greeted(served.client(Some(&west))).await.unwrap();
    let (mut kept, _) = served.greeted(served.client(Some(&east))).await.unwrap();
    served.revocations.set(|svid| svid.spiffe_id == id("agent/west"));
    ended(&mut cut).await;
    assert!(served.greeted(served.client(Some(&west))).await.is_err(), "it does not come back");
    assert!(served.greeted(served.client(Some(&east))).await.is_ok(), "others do");
    served.revocations.set(|_| false);
    assert!(served.greeted(served.client(Some(&west))).await.is_ok(), "until it is forgiven");
    served.shutdown.cancel();
    // The one that was kept is still there to be drained: it ends by close_notify and not by a reset.
    let mut rest = Vec::new();
    tokio::time::timeout(DEADLINE, kept.read_to_end(&mut rest)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_flood_of_half_open_connections_does_not_shut_others_out() {
    let limits = Limits { handshakes: 64, handshake_timeout: Duration::from_secs(600), ..Limits::default() };
    let served = serve(limits).await;
    let agent = served.federation.identity("agent/west");
    let mut flood = Vec::new();
    for batch in 0..10 {
        for _ in 0..200 {
            flood.push(TcpStream::connect(served.address).await.unwrap());
        }
        let (_, greeting) = served.greeted(served.client(Some(&agent))).await.unwrap();
        assert_eq!(greeting, "verified spiffe://fed.example/agent/west", "after batch {batch}");
    }
    // All but the newest are dropped by the server, long before their handshakes time out.
    let until = tokio::time::Instant::now() + DEADLINE;
    loop {
        let open = flood.iter().filter(|s| is_open(s)).count();
        if open <= 64 {
            break;
        }
        assert!(tokio::time::Instant::now() < until, "{open} half-open connections are kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 1]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_dropped() {
    let served = serve(Limits { handshake_timeout: Duration::from_millis(100), ..Limits::default() }).await;
    let mut stalled = TcpStream::connect(served.address).await.unwrap();
    stalled.write_all(&[22, 3, 1]).await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, stalled.read_to_end(&mut rest)).await.expect("it is dropped");
}

#[tokio::test]
async fn one_source_is_bounded_and_another_is_served() {
    let served = serve(Limits { per_source: 2, ..Limits::default() }).await;
    let agent = served.federation.identity("agent/west");
    let config = served.client(Some(&agent));
    let _first = served.greeted(Arc::clone(&config)).await.unwrap();
    let second = served.greeted(Arc::clone(&config)).await.unwrap();
    assert!(served.greeted(Arc::clone(&config)).await.is_err(), "the third is refused");
    let mut elsewhere = served.dial_from(Arc::clone(&config), "127.0.0.2".parse().unwrap()).await.unwrap();
    assert!(line(&mut elsewhere).await.is_ok(), "another source is not");
    drop(second);
    let until = tokio::time::Instant::now() + DEADLINE;
    while served.greeted(Arc::clone(&config)).await.is_err() {
        assert!(tokio::time::Instant::now() < until, "a place that was left is not given again");
    }
}

#[tokio::test]
async fn shutdown_drains_and_then_cuts() {
    let served = serve(Limits { drain: Duration::from_millis(200), ..Limits::default() }).await;
    let agent = served.federation.identity("agent/west");
    let (mut open, _) = served.greeted(served.client(Some(&agent))).await.unwrap();
    let half_open = TcpStream::connect(served.address).await.unwrap();
    served.shutdown.cancel();
    ended(&mut open).await;
    tokio::time::timeout(DEADLINE, served.done).await.unwrap().unwrap();
    drop(half_open);
    assert!(TcpStream::connect(served.address).await.is_err(), "nobody listens any more");
}
