//! Envoy as the same chain: TCP proxies with mutual TLS between the outer two, and a gateway that goes by the server
//! name without decrypting.

use super::hop::Hops;
use super::load;
use anyhow::{Context, Result};
use sealane::local::{Lab, Launcher, Process, wait};
use sealane_core::name::TrustDomain;
use sealane_trust::clock;
use sealane_trust::issue::{Authority, Leaf, Validity};
use sealane_trust::key::PrivateKey;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long three of them may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// Its network of the block.
const NETWORK: u8 = 12;
/// The name that is asked for, as long as one of Sealane's.
const SERVER_NAME: &str = "p80.echo.shop.west.sealane.internal";
const TRUST_DOMAIN: &str = "west.bench.local";
const CALLER: &str = "spiffe://west.bench.local/ns/shop/sa/client";
const CALLED: &str = "spiffe://west.bench.local/ns/shop/sa/echo";
const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// Three of them.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Where the client connects.
    pub(crate) entry: SocketAddr,
    /// Its three processes.
    pub(crate) hops: Hops,
    _processes: [Process; 3],
}

impl Chain {
    /// Starts it before a backend that runs.
    pub(crate) async fn start(lab: &Lab, binary: &Path, backend: SocketAddr) -> Result<Self> {
        let directory = lab.directory("envoy")?;
        let identities = Identities::write(&directory)?;
        let (entry, gateway) = (lab.socket(NETWORK, 1, 18_001), lab.socket(NETWORK, 2, 15_443));
        let inbound = lab.socket(NETWORK, 3, 15_008);
        let configurations = [
            (
                "out",
                bootstrap(&listener("out", entry, json!({})), &cluster(gateway, Some(identities.upstream()))),
            ),
            ("gateway", bootstrap(&by_name(gateway), &cluster(inbound, None))),
            ("in", bootstrap(&listener("in", inbound, identities.downstream()), &cluster(backend, None))),
        ];
        // It knows nothing of our rule that children die with their parent.
        let launcher = Launcher::new("setpriv".into(), lab.launcher().logs().into(), "info");
        let start = |(name, configuration): (&str, Value)| {
            let file = directory.join(format!("{name}.json"));
            std::fs::write(&file, serde_json::to_vec(&configuration)?)
                .with_context(|| format!("can not write {}", file.display()))?;
            let path = |path: &Path| path.to_string_lossy().into_owned();
            let before = ["--pdeathsig".into(), "KILL".into(), path(binary), "-c".into(), path(&file)];
            let after = ["--concurrency", "1", "--disable-hot-restart", "-l", "warning"].map(String::from);
            let arguments: Vec<String> = before.into_iter().chain(after).collect();
            launcher.start(&format!("envoy-{name}"), &arguments)
        };
        let [out, middle, inner] = configurations.map(start);
        let processes = [out?, middle?, inner?];
        let pids = [processes[0].id(), processes[1].id(), processes[2].id()];
        let answered = async || load::once(entry).await.map(Some);
        let standing = wait::until("Envoy's chain answers", PATIENCE, answered).await;
        standing.with_context(|| processes.iter().map(Process::said).collect::<String>())?;
        Ok(Chain { entry, hops: Hops::new(pids), _processes: processes })
    }
}

/// The certificates of both ends, on disk: P-256, leaf and root, SPIFFE IDs, as Sealane's.
struct Identities {
    directory: PathBuf,
}

impl Identities {
    fn write(directory: &Path) -> Result<Self> {
        let validity = Validity::starting(clock::now(), Duration::from_secs(24 * 3600));
        let root = Authority::root(&TrustDomain::parse(TRUST_DOMAIN)?, "bench", validity)?;
        for (name, id) in [("caller", CALLER), ("called", CALLED)] {
            let key = PrivateKey::generate()?;
            let leaf = Leaf { spiffe_id: id.parse()?, cluster_id: None, validity, dns_sans: Vec::new() };
            let issued = root.issue(key.public(), &leaf)?;
            std::fs::write(directory.join(format!("{name}.pem")), issued.chain_pem())?;
            key.write_file(&directory.join(format!("{name}.key")))?;
        }
        std::fs::write(directory.join("root.pem"), root.chain_pem())?;
        Ok(Identities { directory: directory.to_owned() })
    }

    fn common(&self, own: &str, peer: &str) -> Value {
        let file = |name: String| json!({ "filename": self.directory.join(name) });
        json!({
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "tls_certificates": [{
                "certificate_chain": file(format!("{own}.pem")),
                "private_key": file(format!("{own}.key")),
            }],
            "validation_context": {
                "trusted_ca": file("root.pem".into()),
                "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": peer } }],
            },
            "alpn_protocols": ["sealane-tcp/1"],
        })
    }

    fn upstream(&self) -> Value {
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": format!("{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"),
                "sni": SERVER_NAME,
                "max_session_keys": 0,
                "common_tls_context": self.common("caller", CALLED),
            },
        })
    }

    /// The part of a filter chain that makes it mutual TLS.
    fn downstream(&self) -> Value {
        json!({
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
                    "require_client_certificate": true,
                    "disable_stateless_session_resumption": true,
                    "disable_stateful_session_resumption": true,
                    "common_tls_context": self.common("called", CALLER),
                },
            },
        })
    }
}

fn bootstrap(listener: &Value, cluster: &Value) -> Value {
    json!({ "static_resources": { "listeners": [listener], "clusters": [cluster] } })
}

fn address(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}

/// A listener whose only filter chain has these properties and proxies bytes.
fn listener(name: &str, at: SocketAddr, mut properties: Value) -> Value {
    properties["filters"] = json!([{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": name,
            "cluster": "next",
        },
    }]);
    json!({ "name": name, "address": address(at), "filter_chains": [properties] })
}

/// The gateway's: what asks for the name is passed on.
fn by_name(at: SocketAddr) -> Value {
    let properties = json!({ "filter_chain_match": { "server_names": [SERVER_NAME] } });
    let mut listener = listener("gateway", at, properties);
    listener["listener_filters"] = json!([{
        "name": "envoy.filters.listener.tls_inspector",
        "typed_config": { "@type": format!("{TYPES}.filters.listener.tls_inspector.v3.TlsInspector") },
    }]);
    listener
}

fn cluster(at: SocketAddr, transport: Option<Value>) -> Value {
    let mut cluster = json!({
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "5s",
        // Else it refuses beyond 1,024.
        "circuit_breakers": { "thresholds": [{ "max_connections": 100_000, "max_pending_requests": 100_000 }] },
        "load_assignment": {
            "cluster_name": "next",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(at) } }] }],
        },
    });
    if let Some(transport) = transport {
        cluster["transport_socket"] = transport;
    }
    cluster
}
