//! Joining by tokens of an issuer, with real servers, and an issuer that serves its keys over real TLS.

use super::bench::{Bench, Member, admin_key, eventually};
use data_encoding::BASE64URL_NOPAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use sealane_proto::federation::v1 as pb;
use sealane_proto::federation::v1::add_cluster_request::{Discovery, GivenKeys, Issuer as Stated};
use sealane_proto::federation::v1::enroll_client::EnrollClient;
use sealane_trust::clock;
use sealane_trust::csr::Csr;
use sealane_trust::key::PrivateKey;
use sealane_trust::rustls::ServerConfig;
use sealane_trust::tls;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::{Code, Status};

const SUBJECT: &str = "system:serviceaccount:sealane-system:sealane-agent";

/// One key of an issuer.
struct Signer {
    pair: EcdsaKeyPair,
    kid: &'static str,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap();
        Signer { pair, kid }
    }

    fn jwks(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (BASE64URL_NOPAD.encode(x), BASE64URL_NOPAD.encode(y));
        json!({"keys": [{"kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256", "kid": self.kid, "x": x, "y": y}]})
    }

    fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": self.kid})), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

/// What a token says that is made now; each is another one.
fn claims(bench: &Bench, issuer: &str) -> Value {
    static SERIAL: AtomicUsize = AtomicUsize::new(0);
    let (now, serial) = (clock::now().0 / 1000, SERIAL.fetch_add(1, Ordering::Relaxed));
    let audience = bench.servers[&1].serving.federation.to_string();
    json!({"iss": issuer, "sub": SUBJECT, "aud": [audience], "iat": now, "nbf": now, "exp": now + 600,
        "jti": format!("token-{serial}")})
}

impl Bench {
    async fn add(&self, server: u64, name: &str, issuer: Stated) -> Result<pb::AddClusterReply, Status> {
        let request = pb::AddClusterRequest {
            key: admin_key(),
            name: name.to_owned(),
            subject: SUBJECT.to_owned(),
            issuer: Some(issuer),
            ..Default::default()
        };
        self.admin(server).add_cluster(request).await.map(tonic::Response::into_inner)
    }

    /// Joins by a token. All of these tests come from one address, which may join only so often: then once more.
    async fn enter(
        &self,
        server: u64,
        token: &str,
        key: &PrivateKey,
        uid: Option<&str>,
    ) -> Result<pb::JoinReply, Status> {
        let projected = pb::ProjectedToken {
            cluster: "east".to_owned(),
            token: token.to_owned(),
            uid: uid.map(str::to_owned),
        };
        let csr = Csr::create(key).unwrap().der().to_vec();
        let request = pb::JoinRequest { secret: Vec::new(), csr, projected: Some(projected) };
        let mut client = EnrollClient::new(self.channel(server, None));
        loop {
            match client.join(request.clone()).await {
                Err(status) if status.code() == Code::ResourceExhausted => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                answer => return answer.map(tonic::Response::into_inner),
            }
        }
    }
}

fn given(signer: &Signer, name: &str) -> Stated {
    Stated::Keys(GivenKeys { name: name.to_owned(), jwks: signer.jwks().to_string().into_bytes() })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_cluster_joins_at_any_server_and_again_as_itself() {
    let mut bench = Bench::new().await;
    let second = bench.grow().await;
    let signer = Signer::new("k1");
    let added = bench.add(1, "east", given(&signer, "https://east")).await.unwrap();
    let federation = bench.servers[&1].serving.federation;
    assert_eq!((added.federation, added.trust_domain.as_str()), (federation.0.to_vec(), "east.fed.test"));
    assert_eq!(added.root_hash, bench.servers[&1].serving.pki.root_hash().0);
    // The second server may not have heard of it: it looks.
    let (first, again) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let token = signer.sign(&claims(&bench, "https://east"));
    let joined = bench.enter(second, &token, &first, Some("uid-1")).await.unwrap();
    let east = Member::of("east", joined, &first);
    let _session = east.publish(&bench, 1, 1, &["shop/cart"]).await;

    let refused = bench.enter(1, &token, &again, Some("uid-1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().starts_with("the token was used by another key"), "{refused}");
    let token = signer.sign(&claims(&bench, "https://east"));
    let rejoined = bench.enter(1, &token, &again, Some("uid-1")).await.unwrap();
    let rejoined = Member::of("east", rejoined, &again);
    assert_eq!(rejoined.id, east.id);

    let token = signer.sign(&claims(&bench, "https://east"));
    let other = bench.enter(1, &token, &again, Some("uid-2")).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    assert!(other.message().contains("kube-system UID uid-1, and this one has uid-2"), "{other}");

    let clusters: Value = serde_json::from_slice(&bench.get(1, "/api/v1/clusters").await.1).unwrap();
    assert_eq!(clusters["clusters"][0]["uid"], "uid-1");
    let shown = &clusters["added"][0];
    assert!(shown["last_joined"].is_string(), "{shown}");
    assert_eq!((&shown["member"], &shown["keys"]), (&json!(true), &json!(["k1"])));

    let removal = pb::RemoveClusterRequest { key: admin_key(), name: "east".to_owned() };
    bench.admin(1).remove_cluster(removal).await.unwrap();
    let token = signer.sign(&claims(&bench, "https://east"));
    let removed = bench.enter(1, &token, &again, None).await.unwrap_err();
    assert_eq!(removed.code(), Code::NotFound, "{removed}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refused_by_what_is_wrong_with_it() {
    let bench = Bench::new().await;
    let (signer, foreign) = (Signer::new("k1"), Signer::new("k1"));
    bench.add(1, "east", given(&signer, "https://east")).await.unwrap();
    let key = PrivateKey::generate().unwrap();
    let with = |field: &str, value: Value| {
        let mut claims = claims(&bench, "https://east");
        claims[field] = value;
        signer.sign(&claims)
    };
    let now = clock::now().0 / 1000;
    let unsigned = {
        let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        format!("{}.{}.", part(json!({"alg": "none"})), part(claims(&bench, "https://east")))
    };
    let cases = [
        (unsigned, "the token is signed by \"none\""),
        (foreign.sign(&claims(&bench, "https://east")), "the token's signature does not verify"),
        (
            Signer::new("k2").sign(&claims(&bench, "https://east")),
            "the token is signed by the key k2, which is none",
        ),
        (with("iss", json!("https://west")), "the token is of issuer \"https://west\", which is not the one"),
        (
            with("sub", json!("system:serviceaccount:shop:cart")),
            "the token speaks for \"system:serviceaccount:shop:cart\"",
        ),
        (with("aud", json!(["https://kubernetes.default.svc"])), "the token is for the audience"),
        (with("exp", json!(now - 100)), "the token ran out"),
        (with("iat", json!(now + 1_000)), "the token is valid in"),
        (with("exp", json!(now + 100_000)), "the token is given"),
        ("x".repeat(9_000), "the token has 9000 bytes"),
        ("sealane-join-v1.abc".to_owned(), "this is no token of an issuer"),
    ];
    let before = bench.replica(1).state().1.state.meta.revision;
    for (token, said) in cases {
        let refused = bench.enter(1, &token, &key, None).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().starts_with(said), "{said}: {refused}");
    }
    assert_eq!(bench.replica(1).state().1.state.meta.revision, before, "a stranger writes nothing");
    for (stated, said) in [
        (
            Stated::Keys(GivenKeys { name: String::new(), jwks: b"{}".to_vec() }),
            "jwks: this is no set of keys",
        ),
        (
            Stated::Discovery(Discovery { url: "http://a".to_owned(), authorities: vec![] }),
            "issuer \"http://a\" must be",
        ),
        (
            Stated::Discovery(Discovery { url: "https://a".to_owned(), authorities: vec![vec![1]] }),
            "authorities:",
        ),
    ] {
        let refused = bench.add(1, "west", stated).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(said), "{refused}");
    }
    bench.stop().await;
}

/// An issuer on the web.
struct Web {
    url: String,
    authority: Vec<u8>,
    /// What it says its keys are; `None` while it is away.
    jwks: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Web {
    async fn start(signer: &Signer) -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let authority = cert.der().to_vec();
        let key =
            sealane_trust::rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (jwks, asked) = (Arc::new(Mutex::new(Some(signer.jwks()))), Arc::new(AtomicUsize::new(0)));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (issuer, keys, count) = (url.clone(), jwks.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = vec![0; 4096];
                let Ok(read) = stream.read(&mut request).await else { continue };
                let discovery = request[..read].starts_with(b"GET /.well-known/openid-configuration ");
                let keys = keys.lock().unwrap().clone();
                let body = match (keys, discovery) {
                    (None, _) => None,
                    (Some(_), true) => Some(json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")})),
                    (keys, false) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        keys
                    }
                };
                let (status, body) = match body {
                    Some(body) => ("200 OK", body.to_string()),
                    None => ("503 Service Unavailable", String::new()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Web { url, authority, jwks, asked }
    }

    fn stated(&self) -> Stated {
        Stated::Discovery(Discovery { url: self.url.clone(), authorities: vec![self.authority.clone()] })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_an_issuer_are_fetched_and_followed() {
    let bench = Bench::new().await;
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let web = Web::start(&old).await;
    bench.add(1, "east", web.stated()).await.unwrap();
    let key = PrivateKey::generate().unwrap();
    let began = Instant::now();
    let most = || 1 + usize::try_from(began.elapsed().as_secs() / 10).unwrap();
    let token = |signer: &Signer| signer.sign(&claims(&bench, &web.url));
    // Whoever comes at the same time waits for the same answer.
    let (one, two) = (token(&old), token(&old));
    let both = tokio::join!(bench.enter(1, &one, &key, None), bench.enter(1, &two, &key, None));
    both.0.unwrap();
    both.1.unwrap();
    assert_eq!(web.asked.load(Ordering::Relaxed), 1);
    // A key that nobody has does not make it be asked all the time, but once in ten seconds.
    for _ in 0..20 {
        let refused = bench.enter(1, &token(&Signer::new("none")), &key, None).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    assert!(web.asked.load(Ordering::Relaxed) <= most());
    // What is known holds while it is away, and the next key is found once it may be asked again.
    *web.jwks.lock().unwrap() = None;
    bench.enter(1, &token(&old), &key, None).await.unwrap();
    *web.jwks.lock().unwrap() = Some(new.jwks());
    eventually("the new key is known", async || bench.enter(1, &token(&new), &key, None).await.ok()).await;
    assert!((2..=most()).contains(&web.asked.load(Ordering::Relaxed)));
    let gone = bench.enter(1, &token(&old), &key, None).await.unwrap_err();
    assert!(gone.message().contains("which is none of the issuer's"), "{gone}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_can_not_be_verified_gives_no_keys() {
    let bench = Bench::new().await;
    let signer = Signer::new("k1");
    let (web, other) = (Web::start(&signer).await, Web::start(&signer).await);
    let foreign = Discovery { url: web.url.clone(), authorities: vec![other.authority.clone()] };
    bench.add(1, "east", Stated::Discovery(foreign)).await.unwrap();
    let key = PrivateKey::generate().unwrap();
    let token = signer.sign(&claims(&bench, &web.url));
    let refused = bench.enter(1, &token, &key, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().starts_with("this server can not fetch the keys"), "{refused}");
    assert_eq!(web.asked.load(Ordering::Relaxed), 0);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_is_raised_when_every_server_understands_it() {
    let mut bench = Bench::new().await;
    bench.grow().await;
    let raised = bench.admin(1).raise_version(pb::RaiseVersionRequest {}).await.unwrap().into_inner();
    assert_eq!(raised.version, sealane_core::command::VERSION);
    // A server that does not answer may be of any version.
    let stopped = bench.servers.remove(&2).unwrap();
    stopped.stop().await;
    let refused = bench.admin(1).raise_version(pb::RaiseVersionRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().starts_with("server 2 does not say which command version"), "{refused}");
    bench.stop().await;
}
