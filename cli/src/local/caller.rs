//! A hand-made client with a real identity: what could go past every outbound proxy.

use super::site::Site;
use anyhow::{Context, Result};
use data_encoding::BASE64URL_NOPAD;
use sealane_core::name::TrustDomain;
use sealane_proto::agent::v1::IssueRequest;
use sealane_proto::agent::v1::identity_client::IdentityClient;
use sealane_trust::CertificateDer;
use sealane_trust::bundle::Bundle;
use sealane_trust::csr::Csr;
use sealane_trust::grpc::{DialOptions, channel};
use sealane_trust::key::PrivateKey;
use sealane_trust::tls::{self, ALPN_H2, FederationPeers, Identity};
use serde::Deserialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The protocol between proxies.
pub const ALPN: &[u8] = b"sealane-tcp/1";
/// How long one dial may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a workload token file holds.
#[derive(Deserialize)]
struct TokenFile {
    agent: Vec<String>,
    trust_domain: String,
    roots: Vec<String>,
    secret: String,
}

/// A connection that was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The peer said no, by an alert.
    #[error("refused: {0}")]
    Alert(String),
    /// The connection broke.
    #[error("lost: {0}")]
    Lost(String),
}

/// An identity of a cluster, and the cluster's own roots.
#[derive(Debug)]
pub struct Caller {
    /// The identity.
    pub identity: Identity,
    /// The roots of its own trust domain.
    pub bundle: Bundle,
}

impl Caller {
    /// Gets an SVID from a cluster's agent, by a workload token.
    ///
    /// # Errors
    /// When the agent refuses.
    pub async fn enrol(site: &Site, namespace: &str, account: &str) -> Result<Self> {
        Self::enrol_as(site, &["--namespace", namespace, "--service-account", account]).await
    }

    /// The same, for whom the options of `sealane agent workload-token` say.
    ///
    /// # Errors
    /// When the agent refuses.
    pub async fn enrol_as(site: &Site, whom: &[&str]) -> Result<Self> {
        let file = site.workload_token("caller", whom).await?;
        let token: TokenFile = serde_json::from_slice(&std::fs::read(file).context("no token file")?)?;
        let roots = token.roots.iter().map(|pem| sealane_trust::pem::certificates(pem.as_bytes()));
        let roots: Vec<_> = roots.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let domain = TrustDomain::parse(&token.trust_domain)?;
        let bundle = Bundle::new(domain, roots).context("the token's roots")?;
        let agent = sealane_core::identity::SpiffeId::cluster_agent(bundle.trust_domain());
        let policy = FederationPeers::matching(bundle.clone(), move |svid| svid.spiffe_id == agent);
        let config = tls::client_config(None, Arc::new(policy), &[ALPN_H2]);
        let channel = channel(&token.agent, config, &DialOptions::default())?;
        let key = PrivateKey::generate()?;
        let request = IssueRequest {
            token: BASE64URL_NOPAD.decode(token.secret.as_bytes()).context("the token's secret")?,
            csr: Csr::create(&key)?.der().to_vec(),
        };
        let reply = IdentityClient::new(channel).issue(request).await?.into_inner();
        let chain = reply.chain.into_iter().map(CertificateDer::from).collect();
        Ok(Caller { identity: Identity::new(chain, &key)?, bundle })
    }

    /// Dials a proxy under a server name, and gives the SPIFFE ID that answered; a refusal is a value.
    ///
    /// # Errors
    /// When there is no connection at all, or it neither lives nor ends in time.
    pub async fn dial(
        &self,
        address: SocketAddr,
        sni: &str,
        trust: &Bundle,
    ) -> Result<Result<String, Refused>> {
        let policy = FederationPeers::matching(trust.clone(), |_| true);
        let config = tls::client_config(Some(&self.identity), Arc::new(policy), &[ALPN]);
        let name = sni.to_owned().try_into().context("bad server name")?;
        let stream = TcpStream::connect(address).await.context("can not connect")?;
        let handshake = TlsConnector::from(config).connect(name, stream);
        let mut stream =
            match tokio::time::timeout(TIMEOUT, handshake).await.context("no handshake in time")? {
                Ok(stream) => stream,
                Err(error) => return Ok(Err(refusal(&error))),
            };
        let peer = tls::peer(stream.get_ref().1).context("the peer has no identity")?.spiffe_id.to_string();
        // In TLS 1.3 a refusal of the client's certificate comes after the client's own end of the handshake.
        let mut byte = [0u8; 1];
        match tokio::time::timeout(Duration::from_millis(200), stream.read(&mut byte)).await {
            Err(_) | Ok(Ok(1..)) => Ok(Ok(peer)),
            Ok(Ok(0)) => Ok(Err(Refused::Lost("closed at once".into()))),
            Ok(Err(error)) => Ok(Err(refusal(&error))),
        }
    }
}

fn refusal(error: &std::io::Error) -> Refused {
    match error.get_ref().and_then(|e| e.downcast_ref::<sealane_trust::rustls::Error>()) {
        Some(sealane_trust::rustls::Error::AlertReceived(alert)) => Refused::Alert(format!("{alert:?}")),
        _ => Refused::Lost(error.to_string()),
    }
}
