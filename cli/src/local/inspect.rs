//! What the processes say of themselves, read from their admin listeners and output files.

use super::http;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

/// A proxy's configuration dump.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The revision of the view that it was made from.
    pub revision: String,
    /// Whether the agent's stream is up.
    pub agent_connected: bool,
    /// What it dials, by service.
    pub outbound: Vec<Outbound>,
}

/// An import in a dump.
#[derive(Debug, Clone, Deserialize)]
pub struct Outbound {
    /// `NAMESPACE/NAME`.
    pub service: String,
    /// The import's own addresses.
    pub addresses: Vec<String>,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// A port of an import in a dump.
#[derive(Debug, Clone, Deserialize)]
pub struct Port {
    /// The Service port.
    pub port: u16,
    /// Where its connections can go, best first.
    pub candidates: Vec<Candidate>,
}

/// A candidate in a dump.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Candidate {
    /// The cluster that serves it.
    pub cluster: String,
    /// Its tier: local, remote, avoided.
    pub tier: String,
    /// Its share in the tier.
    pub weight: u32,
    /// How it is reached: direct, gateway, terminated.
    pub path: String,
    /// The endpoint's id, where it is one.
    pub endpoint: Option<String>,
    /// Where it is dialled.
    pub address: Option<String>,
    /// The identities that may answer.
    pub identities: Vec<String>,
    /// healthy, half-open, ejected.
    pub state: String,
}

impl Config {
    /// The candidates of a service, of all its ports.
    pub fn candidates(&self, service: &str) -> impl Iterator<Item = &Candidate> {
        let of = move |o: &&Outbound| o.service == service;
        self.outbound.iter().filter(of).flat_map(|o| &o.ports).flat_map(|p| &p.candidates)
    }

    /// The clusters that a service's connections can go to.
    #[must_use]
    pub fn clusters(&self, service: &str) -> BTreeSet<String> {
        self.candidates(service).map(|c| c.cluster.clone()).collect()
    }
}

/// One connection in a proxy's record.
#[derive(Debug, Clone, Deserialize)]
pub struct Connection {
    /// outbound, inbound, gateway, probe.
    pub direction: String,
    /// `NAMESPACE/NAME`.
    pub service: Option<String>,
    /// The server name that was asked for.
    pub sni: Option<String>,
    /// The SPIFFE ID that the proxy presented.
    pub local_identity: Option<String>,
    /// The SPIFFE ID that the peer proved.
    pub peer_identity: Option<String>,
    /// direct, gateway, spliced, terminated, none.
    pub path: String,
    /// closed, failed, refused, active.
    pub result: String,
    /// Why it ended so.
    pub reason: Option<String>,
}

impl Connection {
    /// Both identities: ours, the peer's.
    #[must_use]
    pub fn identities(&self) -> (Option<&str>, Option<&str>) {
        (self.local_identity.as_deref(), self.peer_identity.as_deref())
    }
}

/// A proxy's configuration.
///
/// # Errors
/// When its admin listener does not answer well.
pub async fn config(admin: SocketAddr) -> Result<Config> {
    http::get(admin, "/config").await?.json()
}

/// What an agent says of itself.
///
/// # Errors
/// When its admin listener does not answer well.
pub async fn agent(admin: SocketAddr) -> Result<serde_json::Value> {
    http::get(admin, "/status").await?.json()
}

/// A proxy's last connections, oldest first.
///
/// # Errors
/// When its admin listener does not answer well.
pub async fn connections(admin: SocketAddr) -> Result<Vec<Connection>> {
    http::get(admin, "/connections").await?.json()
}

/// The sum of a metric's samples that have all of the given labels.
///
/// # Errors
/// When the listener does not answer well.
pub async fn metric(admin: SocketAddr, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
    let answer = http::get(admin, "/metrics").await?;
    let text = String::from_utf8(answer.body).context("metrics are no text")?;
    Ok(sum(&text, name, labels))
}

fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> u64 {
    let wanted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    let samples = text.lines().filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        let rest = sample.strip_prefix(name)?;
        let exact = rest.is_empty() || rest.starts_with('{');
        let all = wanted.iter().all(|label| rest.contains(label.as_str()));
        (exact && all).then(|| value.parse::<u64>().ok())?
    });
    samples.sum()
}

/// How many connections of a service went through a gateway and have ended.
///
/// # Errors
/// When the gateway's admin listener does not answer well.
pub async fn through_gateway(admin: SocketAddr, service: &str) -> Result<u64> {
    let labels = [("direction", "gateway"), ("service", service), ("verdict", "closed")];
    metric(admin, "sealane_proxy_connections_total", &labels).await
}

/// Whether an agent has written that the federation accepted an export.
///
/// # Errors
/// When its output can not be read.
pub fn is_exported(out: &Path, namespace: &str, service: &str) -> Result<bool> {
    let file = out.join("serviceexports").join(format!("{namespace}.{service}.yaml"));
    let Ok(text) = std::fs::read_to_string(&file) else { return Ok(false) };
    let object: serde_json::Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", file.display()))?;
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    Ok(["Valid", "Ready"]
        .iter()
        .all(|wanted| conditions.iter().any(|c| c["type"] == **wanted && c["status"] == "True")))
}

/// The clusters whose endpoints of a service an agent has written into its EndpointSlices.
///
/// # Errors
/// When its output can not be read.
pub fn written_clusters(out: &Path, namespace: &str, service: &str) -> Result<BTreeSet<String>> {
    let folder = out.join("endpointslices");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("can not read {}", folder.display()))?;
    let mut clusters = BTreeSet::new();
    for entry in entries {
        // One that is replaced or removed meanwhile is looked at again by the caller.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
        let slice: serde_json::Value =
            serde_saphyr::from_str(&text).context("an EndpointSlice is not YAML")?;
        let (metadata, labels) = (&slice["metadata"], &slice["metadata"]["labels"]);
        let of_service = metadata["namespace"] == namespace
            && labels["multicluster.kubernetes.io/service-name"] == service;
        let filled = slice["endpoints"].as_array().is_some_and(|endpoints| !endpoints.is_empty());
        if of_service && filled {
            let cluster = labels["multicluster.kubernetes.io/source-cluster"].as_str();
            clusters.extend(cluster.map(str::to_owned));
        }
    }
    Ok(clusters)
}

/// A revision as it orders: generation, then index.
///
/// # Errors
/// When it is not written GENERATION.INDEX.
pub fn revision(text: &str) -> Result<(u64, u64)> {
    let parse = || {
        let (generation, index) = text.split_once('.')?;
        Some((generation.parse().ok()?, index.parse().ok()?))
    };
    parse().with_context(|| format!("{text:?} is no revision"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_their_labels() {
        let text = "a_total{x=\"1\",y=\"2\"} 3\na_total{y=\"2\",x=\"2\"} 4\na_total_more{y=\"2\"} 9\nb 1\n";
        assert_eq!(sum(text, "a_total", &[("y", "2")]), 7);
        assert_eq!(sum(text, "a_total", &[("x", "1"), ("y", "2")]), 3);
        assert_eq!((sum(text, "b", &[]), sum(text, "a_total", &[("z", "1")])), (1, 0));
    }

    #[test]
    fn revisions_order_by_generation_first() {
        assert!(revision("2.1").unwrap() > revision("1.900").unwrap());
        assert!(revision("7").is_err());
    }
}
