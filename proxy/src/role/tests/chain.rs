use super::*;
use crate::tls;
use sealane_trust::sha256;

#[tokio::test]
async fn a_half_closed_request_is_answered_across_clusters_and_both_identities_are_recorded() {
    let chain = Chain::to(echo_at_end().await).await;
    let mut stream = TcpStream::connect(chain.entry).await.unwrap();
    stream.write_all(b"there").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "there and back");

    let out = &chain.client.connections("outbound", 1).await[0];
    let through = &chain.gateway.connections("gateway", 1).await[0];
    let arrived = &chain.server.connections("inbound", 1).await[0];
    let [web, cart] = ["spiffe://east.test/ns/shop/sa/web", "spiffe://west.test/ns/shop/sa/cart"];
    assert_eq!((&out["local_identity"], &out["peer_identity"]), (&web.into(), &cart.into()));
    assert_eq!((&arrived["local_identity"], &arrived["peer_identity"]), (&cart.into(), &web.into()));
    for end in [out, through, arrived] {
        assert_eq!(end["sni"], "p80.cart.shop.svc.clusterset.local");
        assert_eq!(end["result"], "closed", "{end}");
    }
    assert_eq!((&out["bytes_sent"], &out["bytes_received"]), (&5.into(), &14.into()));
    assert_eq!((&arrived["bytes_sent"], &arrived["bytes_received"]), (&14.into(), &5.into()));
    assert_eq!(through["path"], "spliced");
    assert_eq!(through["peer_identity"], serde_json::Value::Null, "a gateway sees only ciphertext");
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let chain = Chain::to(says("welcome").await).await;
    assert_eq!(hear(chain.entry).await.as_deref(), Ok("welcome"));
}

fn random(n: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; n];
    rand::Rng::fill(&mut rand::rng(), &mut bytes[..]);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_in_both_directions_at_once_arrives_exactly() {
    const SIZE: usize = 64 * 1024 * 1024;
    let (listener, app) = listener().await;
    let chain = Chain::to(app).await;
    let (up, down) = (random(SIZE), random(SIZE));
    let (sent, returned) = (sha256(&up), sha256(&down));
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        both_ways(stream, down).await
    });
    let client = both_ways(TcpStream::connect(chain.entry).await.unwrap(), up).await;
    assert_eq!((server.await.unwrap(), client), (sent, returned));
    let through = &chain.gateway.connections("gateway", 1).await[0];
    assert!(through["bytes_sent"].as_u64().unwrap() > SIZE as u64, "{through}");
    assert_eq!(chain.gateway.context.pipes.in_use(), 0);
    assert!(chain.gateway.context.pipes.opened() > 0, "it was spliced");
}

/// Sends all, ends, and hashes what comes.
async fn both_ways(stream: TcpStream, bytes: Vec<u8>) -> [u8; 32] {
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn(async move {
        write.write_all(&bytes).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    read.read_to_end(&mut got).await.unwrap();
    sending.await.unwrap();
    sha256(&got)
}

#[tokio::test]
async fn the_caller_closing_first_ends_the_other_side_too() {
    let (listener, app) = listener().await;
    let chain = Chain::to(app).await;
    let mut client = TcpStream::connect(chain.entry).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut byte = [0u8; 1];
    server.read_exact(&mut byte).await.unwrap();
    drop(server);
    assert_eq!(client.read(&mut byte).await.unwrap(), 0, "its end arrives");
    drop(client);
    assert_eq!(chain.client.connections("outbound", 1).await[0]["result"], "closed");
}

#[tokio::test]
async fn a_cut_answer_is_never_taken_for_a_whole_one() {
    let (listener, app) = listener().await;
    let chain = Chain::to(app).await;
    let mut client = TcpStream::connect(chain.entry).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.read_exact(&mut [0u8; 1]).await.unwrap();
    server.write_all(b"half an ans").await.unwrap();
    let mut start = [0u8; 11];
    client.read_exact(&mut start).await.unwrap();
    crate::tcp::reset_on_drop(&server);
    drop(server);
    let end = client.read(&mut start).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_new_certificate_is_presented_to_new_connections_and_old_ones_stay() {
    let (listener, app) = listener().await;
    let chain = Chain::to(app).await;
    let mut old = TcpStream::connect(chain.entry).await.unwrap();
    old.write_all(b"1").await.unwrap();
    let (mut old_server, _) = listener.accept().await.unwrap();
    for (proxy, cluster, path) in
        [(&chain.client, &chain.east, "ns/shop/sa/web"), (&chain.server, &chain.west, "ns/shop/sa/cart")]
    {
        let before = proxy.context.identity.current().serial;
        let (certificates, key) = cluster.ca.certify(path);
        proxy.context.identity.replace(certificates, &key).unwrap();
        assert_ne!(proxy.context.identity.current().serial, before);
    }
    let mut new = TcpStream::connect(chain.entry).await.unwrap();
    new.write_all(b"2").await.unwrap();
    let (mut new_server, _) = listener.accept().await.unwrap();
    for (client, server) in [(&mut old, &mut old_server), (&mut new, &mut new_server)] {
        let mut byte = [0u8; 1];
        server.read_exact(&mut byte).await.unwrap();
        server.write_all(&byte).await.unwrap();
        client.read_exact(&mut byte).await.unwrap();
    }
}

#[tokio::test]
async fn draining_takes_nothing_new_and_lets_the_open_finish() {
    let (listener, app) = listener().await;
    let chain = Chain::to(app).await;
    let mut client = TcpStream::connect(chain.entry).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.read_exact(&mut [0u8; 1]).await.unwrap();
    let drain = chain.client.context.drain.clone();
    drain.begin();
    let finish = tokio::spawn(async move { drain.finish(Duration::from_secs(30)).await });
    let refused = async {
        while TcpStream::connect(chain.entry).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), refused).await.expect("the port closes");
    server.write_all(b"late").await.unwrap();
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "late");
    drop(client);
    tokio::time::timeout(Duration::from_secs(5), finish).await.expect("nothing is open").unwrap();
}

#[tokio::test]
async fn a_dead_application_fails_over_without_a_word_lost_and_comes_back() {
    let west = Chain::to(says("west").await).await;
    let (local_listener, local_app) = listener().await;
    let mut local = Proxy::new(&west.east, "ns/shop/sa/cart");
    local.tell(vec![Item::Peer(west.east.peer(true))]);
    local.tell(vec![inbound(vec![target(OTHER_ENDPOINT, None, local_app)], &["east"])]);
    let local_inbound = local.sidecar().await;
    let mut client = west.client;
    let id = west.east.id("ns/shop/sa/cart");
    client.tell(vec![outbound(vec![
        direct("east", Tier::Local, OTHER_ENDPOINT, local_inbound, Some(id)),
        by_gateway("west", Tier::Remote, west.gateway_address, &[west.west.id("ns/shop/sa/cart")]),
    ])]);
    let serve_local = |listener: TcpListener| {
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(b"east").await;
            }
        })
    };
    let running = serve_local(local_listener);
    assert_eq!(hear(west.entry).await.as_deref(), Ok("east"), "local first");
    running.abort();
    let _ = running.await;
    for _ in 0..3 {
        assert_eq!(hear(west.entry).await.as_deref(), Ok("west"), "the remote one serves meanwhile");
    }
    serve_local(TcpListener::bind(local_app).await.unwrap());
    let back = async { while hear(west.entry).await.as_deref() != Ok("east") {} };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("the local one is tried again");
}

#[tokio::test]
async fn a_gateway_terminates_for_an_endpoint_without_a_proxy() {
    let app = says("bare").await;
    let mut chain = Chain::to(app).await;
    chain.gateway.tell(vec![inbound(vec![target(ENDPOINT, None, app)], &["east"])]);
    let gateway_id = chain.west.id("sealane/gateway");
    let via = by_gateway("west", Tier::Remote, chain.gateway_address, &[gateway_id]);
    chain.client.tell(vec![outbound(vec![via])]);
    assert_eq!(hear(chain.entry).await.as_deref(), Ok("bare"));
    let out = &chain.client.connections("outbound", 1).await[0];
    assert_eq!(out["peer_identity"], "spiffe://west.test/sealane/gateway");
}

#[tokio::test]
async fn an_endpoint_without_a_proxy_in_our_network_is_reached_through_its_gateway() {
    let app = says("bare").await;
    let mut chain = Chain::to(app).await;
    chain.gateway.tell(vec![inbound(vec![target(ENDPOINT, None, app)], &["east"])]);
    let mut bare = direct("west", Tier::Remote, ENDPOINT, app, Some(chain.west.id("ns/shop/sa/cart")));
    if let Path::Direct { inbound_port, .. } = &mut bare.path {
        *inbound_port = None;
    }
    chain.client.tell(vec![outbound(vec![bare])]);
    assert!(hear(chain.entry).await.is_err(), "no gateway is known: never in plain text");
    let refused = &chain.client.connections("outbound", 1).await[0];
    assert!(refused["reason"].as_str().unwrap().contains("has no inbound proxy"), "{refused}");
    let peer = PeerItem { probes: vec![gateway_address(chain.gateway_address)], ..chain.west.peer(false) };
    chain.client.tell(vec![Item::Peer(peer)]);
    assert_eq!(hear(chain.entry).await.as_deref(), Ok("bare"));
}

#[tokio::test]
async fn probes_prove_the_gateway_identity() {
    let mut chain = Chain::to(nobody().await).await;
    let (results, mut probed) = tokio::sync::mpsc::channel(4);
    let at = |address| PeerItem { probes: vec![gateway_address(address)], ..chain.west.peer(false) };
    let good = at(chain.gateway_address);
    chain.client.tell(vec![Item::Peer(good)]);
    tokio::spawn(crate::probe::follow(Arc::clone(&chain.client.context), results));
    let up = probed.recv().await.unwrap().remove(0);
    assert_eq!((up.cluster.as_str(), up.ok, up.error.as_str()), ("west", true, ""));
    let seen = &chain.gateway.connections("probe", 1).await[0];
    assert_eq!(seen["peer_identity"], "spiffe://east.test/ns/shop/sa/web");
    // A sidecar is no gateway, whatever its cluster.
    let sidecar = chain.server.sidecar().await;
    let wrong = PeerItem { probes: vec![gateway_address(sidecar)], ..chain.west.peer(false) };
    chain.client.tell(vec![Item::Peer(wrong)]);
    let down = async {
        loop {
            let result = probed.recv().await.unwrap().remove(0);
            if !result.ok {
                return result;
            }
        }
    };
    let down = tokio::time::timeout(Duration::from_secs(10), down).await.unwrap();
    assert!(down.error.contains("UnrecognisedName"), "{}", down.error);
}

#[test]
fn the_protocol_is_as_decided() {
    assert_eq!(tls::ALPN, b"sealane-tcp/1");
}

/// A server that finishes handshakes and dies at once.
async fn dies_after_the_handshake(cluster: &Cluster, path: &str) -> SocketAddr {
    let (listener, address) = listener().await;
    let proxy = Proxy::new(cluster, path);
    let config = sealane_trust::tls::server_config(
        &proxy.context.identity,
        sealane_trust::tls::ClientAuth::None,
        &[tls::ALPN],
    );
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let accepted = tokio_rustls::TlsAcceptor::from(Arc::clone(&config)).accept(stream).await;
            crate::tcp::reset_on_drop(accepted.unwrap().get_ref().0);
        }
    });
    address
}

#[tokio::test]
async fn a_peer_that_dies_right_after_the_handshake_costs_nothing_while_no_byte_was_taken() {
    let mut chain = Chain::to(says("alive").await).await;
    let dying = dies_after_the_handshake(&chain.east, "ns/shop/sa/cart").await;
    let id = chain.east.id("ns/shop/sa/cart");
    chain.client.tell(vec![outbound(vec![
        direct("east", Tier::Local, OTHER_ENDPOINT, dying, Some(id)),
        by_gateway("west", Tier::Remote, chain.gateway_address, &[chain.west.id("ns/shop/sa/cart")]),
    ])]);
    assert_eq!(hear(chain.entry).await.as_deref(), Ok("alive"));
    assert_eq!(chain.client.connections("outbound", 1).await[0]["peer_cluster"], "west");
    assert_eq!(chain.client.context.metrics.ejections.get(), 1);
}

#[tokio::test]
async fn a_connection_at_rest_is_small() {
    let chain = Chain::to(nobody().await).await;
    let (listener, address) = listener().await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (other, from) = listener.accept().await.unwrap();
    let context = Arc::clone(&chain.client.context);
    let import = ImportPort { service: service(), port: 80 };
    let outbound = sidecar::outbound::serve(Arc::clone(&context), stream, from, import);
    let inbound = sidecar::connection(context, Gate::new(Limits::default()), other, from);
    let sizes = (size_of_val(&outbound), size_of_val(&inbound));
    println!("{sizes:?}");
    assert!(sizes.0 < 12 * 1024 && sizes.1 < 12 * 1024, "{sizes:?}");
}
