use super::*;

/// Opens a TLS connection of a stranger, without our certificates, and returns the alert that it got.
async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut got = Vec::new();
    // A reset after the alert is fine: what came before it counts.
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut got)).await.unwrap();
    got
}

#[tokio::test]
async fn garbage_and_unknown_names_get_an_alert() {
    let chain = Chain::to(nobody().await).await;
    let alert = |code: u8| vec![21, 3, 3, 0, 2, 2, code];
    assert_eq!(raw(chain.gateway_address, b"GET / HTTP/1.1\r\n\r\n").await, alert(50));
    let sidecar = chain.server.sidecar().await;
    assert_eq!(raw(sidecar, b"\x16\x03\x01\x00\x00").await, alert(50));
    let metrics = chain.gateway.context.metrics.text();
    assert!(metrics.contains("turned_away_total{reason=\"not_a_client_hello\"} 1"), "{metrics}");
}

#[tokio::test]
async fn an_unknown_service_is_refused_by_the_gateway() {
    let mut chain = Chain::to(says("x").await).await;
    chain.gateway.change(Vec::new(), vec![Key::Inbound(service())]);
    assert!(hear(chain.entry).await.is_err());
    let out = &chain.client.connections("outbound", 1).await[0];
    assert_eq!(out["result"], "refused");
    assert!(out["reason"].as_str().unwrap().contains("UnrecognisedName"), "{out}");
    let through = &chain.gateway.connections("gateway", 1).await[0];
    assert_eq!(through["reason"], "shop/cart is not exported here");
}

#[tokio::test]
async fn a_service_that_is_exported_no_more_is_refused_by_the_sidecar_and_open_connections_stay() {
    let (listener, app) = listener().await;
    let mut chain = Chain::to(app).await;
    let mut open = TcpStream::connect(chain.entry).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    chain.server.change(Vec::new(), vec![Key::Inbound(service())]);
    assert!(hear(chain.entry).await.is_err());
    server.write_all(b"still").await.unwrap();
    drop(server);
    let mut heard = String::new();
    open.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "still");
}

#[tokio::test]
async fn a_cluster_that_does_not_import_is_not_admitted_and_it_says_so() {
    let app = says("secret").await;
    let mut chain = Chain::to(app).await;
    chain.server.tell(vec![inbound(vec![target(ENDPOINT, None, app)], &["west"])]);
    assert!(hear(chain.entry).await.is_err());
    let arrived = &chain.server.connections("inbound", 1).await[0];
    assert_eq!(arrived["result"], "refused", "{arrived}");
    assert_eq!(arrived["bytes_sent"], 0);
    let out = &chain.client.connections("outbound", 1).await[0];
    assert_eq!(out["result"], "refused");
    assert!(out["reason"].as_str().unwrap().starts_with("the peer refuses us"), "{out}");
}

#[tokio::test]
async fn an_identity_outside_the_set_is_refused_by_the_caller() {
    let mut chain = Chain::to(says("impostor").await).await;
    let other = chain.west.id("ns/shop/sa/other");
    let via = by_gateway("west", Tier::Remote, chain.gateway_address, &[other]);
    chain.client.tell(vec![outbound(vec![via])]);
    assert!(hear(chain.entry).await.is_err());
    let out = &chain.client.connections("outbound", 1).await[0];
    assert!(out["reason"].as_str().unwrap().contains("which is not accepted here"), "{out}");
}

#[tokio::test]
async fn an_identity_of_another_cluster_is_refused_whatever_it_says() {
    // The same trust domain by name, signed by another authority.
    let mut chain = Chain::to(says("impostor").await).await;
    let impostor = Cluster::new("west");
    chain.client.tell(vec![Item::Peer(impostor.peer(false))]);
    assert!(hear(chain.entry).await.is_err());
    let out = &chain.client.connections("outbound", 1).await[0];
    assert!(out["reason"].as_str().unwrap().contains("UnknownIssuer"), "{out}");
}

#[tokio::test]
async fn a_removed_cluster_has_its_connections_ended_on_both_sides() {
    let (listener, app) = listener().await;
    for removed_at_server in [true, false] {
        let mut chain = Chain::to(app).await;
        let mut client = TcpStream::connect(chain.entry).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.read_exact(&mut [0u8; 1]).await.unwrap();
        if removed_at_server {
            chain.server.change(Vec::new(), vec![Key::Peer(name("east"))]);
        } else {
            chain.client.change(Vec::new(), vec![Key::Peer(name("west"))]);
        }
        let mut byte = [0u8; 1];
        let ended =
            async { (client.read(&mut byte).await.is_err(), server.read(&mut [0u8; 1]).await.is_err()) };
        let ended = tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
        assert_eq!(ended, (true, true), "removed at server: {removed_at_server}");
    }
}

#[tokio::test]
async fn those_who_dally_make_room_and_cost_little() {
    let chain = Chain::to(says("served").await).await;
    let limits = Limits { dallying: 8, spared: Duration::ZERO, ..Limits::default() };
    let door = chain.gateway.gateway(limits).await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(&[22, 3, 1]).await.unwrap();
        slow.push(stream);
    }
    let mut client = chain.client;
    let accepted = [chain.west.id("ns/shop/sa/cart")];
    client.tell(vec![outbound(vec![by_gateway("west", Tier::Remote, door, &accepted)])]);
    assert_eq!(hear(chain.entry).await.as_deref(), Ok("served"), "a prompt client gets through");
    let metrics = chain.gateway.context.metrics.text();
    let evicted =
        metrics.lines().find_map(|l| l.strip_prefix("sealane_proxy_turned_away_total{reason=\"evicted\"} "));
    assert!(evicted.unwrap().parse::<u32>().unwrap() >= 42, "{metrics}");
}

#[tokio::test]
async fn whole_client_hellos_of_a_stranger_do_not_fill_the_gateway() {
    let chain = Chain::to(says("served").await).await;
    let door =
        chain.gateway.gateway(Limits { dallying: 8, spared: Duration::ZERO, ..Limits::default() }).await;
    let hello = crate::tls::hello::tests::real("p80.cart.shop.svc.clusterset.local");
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(&hello).await.unwrap();
        stream.read_exact(&mut [0u8; 5]).await.expect("the inbound proxy answers");
        slow.push(stream);
    }
    let ended = chain.gateway.connections("gateway", 12).await;
    assert!(ended.iter().all(|c| c["reason"].as_str().unwrap().contains("evicted")), "{ended:#?}");
    let mut client = chain.client;
    let accepted = [chain.west.id("ns/shop/sa/cart")];
    client.tell(vec![outbound(vec![by_gateway("west", Tier::Remote, door, &accepted)])]);
    assert_eq!(hear(chain.entry).await.as_deref(), Ok("served"), "a prompt client gets through");
}

#[tokio::test(start_paused = true)]
async fn a_client_hello_has_five_seconds() {
    let (listener, address) = listener().await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&[22, 3, 1]).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let began = tokio::time::Instant::now();
    let refused = crate::tls::read::hello(&mut stream).await.unwrap_err();
    assert_eq!((refused.reason(), began.elapsed().as_secs()), ("client_hello_timeout", 5));
}

#[tokio::test]
async fn what_is_not_imported_is_refused_with_a_reason() {
    let chain = Chain::to(nobody().await).await;
    let mut client = chain.client;
    client.change(Vec::new(), vec![Key::Outbound(service())]);
    assert!(hear(chain.entry).await.is_err());
    let out = &client.connections("outbound", 1).await[0];
    assert_eq!(out["reason"], "shop/cart port 80 is not imported here");
}

#[tokio::test]
async fn every_candidate_is_named_when_none_answers() {
    let chain = Chain::to(nobody().await).await;
    let mut client = chain.client;
    let id = chain.west.id("ns/shop/sa/cart");
    client.tell(vec![outbound(vec![
        direct("west", Tier::Remote, ENDPOINT, nobody().await, Some(id)),
        direct("edge", Tier::Remote, OTHER_ENDPOINT, nobody().await, None),
    ])]);
    assert!(hear(chain.entry).await.is_err());
    let reason = client.connections("outbound", 1).await[0]["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.starts_with(
            "edge direct e-bbbbbbbbbbbbb: its cluster is not among the trusted peers; west direct"
        )
    );
    assert!(reason.contains("can not connect to 127.0.0.1"), "{reason}");
}
