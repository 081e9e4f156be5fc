use super::*;
use crate::fixture::{DAY, Federation, id};
use rustls_pki_types::ServerName;
use sealane_core::identity::SpiffeId;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

type Pair = (client::TlsStream<DuplexStream>, server::TlsStream<DuplexStream>);

/// Both ends of a handshake. The client learns of a refusal of its certificate only when it reads.
async fn connect(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (io::Result<Pair>, Option<String>) {
    let (near, far) = duplex(64 * 1024);
    let name = ServerName::try_from("ignored.example").unwrap();
    let (client, server) =
        tokio::join!(TlsConnector::from(client).connect(name, near), TlsAcceptor::from(server).accept(far));
    match (client, server) {
        (Ok(client), Ok(server)) => (Ok((client, server)), None),
        (client, server) => {
            let server = server.err().map(|e| e.to_string());
            (Err(client.err().unwrap_or_else(|| io::Error::other("server refused"))), server)
        }
    }
}

fn peers(federation: &Federation) -> Arc<dyn PeerPolicy> {
    Arc::new(FederationPeers::matching(federation.bundle(), |_| true))
}

fn ids(pair: &Pair) -> (Option<SpiffeId>, Option<SpiffeId>) {
    let id = |c: &CommonState| peer(c).map(|v| v.spiffe_id.clone());
    (id(pair.0.get_ref().1), id(pair.1.get_ref().1))
}

#[tokio::test]
async fn both_ends_know_each_other() {
    let federation = Federation::new();
    let server =
        server_config(&federation.identity("server/1"), ClientAuth::Required(peers(&federation)), &[ALPN_H2]);
    let client = client_config(Some(&federation.identity("agent/west")), peers(&federation), &[ALPN_H2]);
    let pair = connect(client, server).await.0.unwrap();
    assert_eq!(ids(&pair), (Some(id("server/1")), Some(id("agent/west"))));
    assert_eq!(pair.0.get_ref().1.alpn_protocol(), Some(ALPN_H2));
    assert_eq!(pair.0.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[tokio::test]
async fn a_client_without_certificate_gets_where_it_may() {
    let federation = Federation::new();
    let identity = federation.identity("server/1");
    let anonymous = client_config(None, peers(&federation), &[]);
    let optional = server_config(&identity, ClientAuth::Optional(peers(&federation)), &[]);
    let pair = connect(Arc::clone(&anonymous), optional).await.0.unwrap();
    assert_eq!(ids(&pair), (Some(id("server/1")), None));
    let required = server_config(&identity, ClientAuth::Required(peers(&federation)), &[]);
    assert!(connect(anonymous, required).await.0.is_err());
}

#[tokio::test]
async fn strangers_are_refused_on_either_side() {
    let (federation, other) = (Federation::new(), Federation::new());
    let server = |of: &Federation, trusts: &Federation| {
        server_config(&of.identity("server/1"), ClientAuth::Optional(peers(trusts)), &[])
    };
    let client = |of: &Federation| client_config(Some(&of.identity("agent/west")), peers(&federation), &[]);
    let (refused, _) = connect(client(&federation), server(&other, &federation)).await;
    assert!(refused.unwrap_err().to_string().contains("UnknownIssuer"));
    // A bad certificate is not as good as none, even where none would do.
    let (refused, why) = connect(client(&other), server(&federation, &federation)).await;
    assert!(refused.is_err() && why.unwrap().contains("UnknownIssuer"));
}

#[tokio::test]
async fn a_genuine_identity_that_is_not_welcome_is_refused_by_name() {
    let federation = Federation::new();
    let server = server_config(&federation.identity("agent/west"), ClientAuth::None, &[]);
    let bundle = || federation.bundle();
    for policy in [FederationPeers::servers(bundle()), FederationPeers::exactly(bundle(), id("agent/east"))] {
        let (refused, _) = connect(client_config(None, Arc::new(policy), &[]), Arc::clone(&server)).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("agent/west"), "{text}");
    }
    let policy = Arc::new(FederationPeers::exactly(bundle(), id("agent/west")));
    assert!(connect(client_config(None, policy, &[]), server).await.0.is_ok());
}

#[tokio::test]
async fn an_identity_is_exchanged_under_a_live_connection() {
    let federation = Federation::new();
    let identity = federation.identity("server/1");
    let server = server_config(&identity, ClientAuth::None, &[]);
    let client = client_config(None, peers(&federation), &[]);
    let (mut near, mut far) = connect(Arc::clone(&client), Arc::clone(&server)).await.0.unwrap();
    let serial = |c: &client::TlsStream<DuplexStream>| peer(c.get_ref().1).unwrap().serial.clone();
    let before = identity.current().serial;
    assert_eq!(serial(&near), before);

    let (issued, key) = federation.leaf("server/1", DAY);
    identity.replace(issued.chain.clone(), &key).unwrap();
    let (next, _far) = connect(client, server).await.0.unwrap();
    assert_eq!(serial(&next), issued.serial);
    assert_ne!(issued.serial, before);

    near.write_all(b"still here").await.unwrap();
    near.flush().await.unwrap();
    let mut bytes = [0; 10];
    far.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"still here");

    let wrong_key = crate::key::PrivateKey::generate().unwrap();
    assert_eq!(identity.replace(issued.chain, &wrong_key), Err(IdentityError::WrongKey));
}

#[tokio::test]
async fn roots_are_exchanged_for_new_handshakes() {
    let (federation, other) = (Federation::new(), Federation::new());
    let policy = Arc::new(FederationPeers::servers(federation.bundle()));
    let server = server_config(&other.identity("server/1"), ClientAuth::None, &[]);
    let client = client_config(None, Arc::clone(&policy) as Arc<dyn PeerPolicy>, &[]);
    assert!(connect(Arc::clone(&client), Arc::clone(&server)).await.0.is_err());
    assert!(policy.replace(other.bundle()));
    assert!(connect(client, server).await.0.is_ok());
    let elsewhere = Federation::of(&sealane_core::name::TrustDomain::parse("other.example").unwrap());
    assert!(!policy.replace(elsewhere.bundle()));
}

#[tokio::test]
async fn no_session_is_resumed() {
    let federation = Federation::new();
    let server = server_config(&federation.identity("server/1"), ClientAuth::None, &[]);
    let client = client_config(None, peers(&federation), &[]);
    for _ in 0..2 {
        let (mut near, mut far) = connect(Arc::clone(&client), Arc::clone(&server)).await.0.unwrap();
        // Bytes both ways, so that a ticket would have been seen.
        far.write_all(b"x").await.unwrap();
        far.flush().await.unwrap();
        near.read_u8().await.unwrap();
        assert_eq!(near.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(near.get_ref().1.tls13_tickets_received(), 0);
    }
}
