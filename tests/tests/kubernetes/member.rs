//! A member of a federation: a Kubernetes API server on loopback, and the replicas of its agent.

use super::sink::{crds, object};
use anyhow::{Context, Result, ensure};
use sealane::local::wait::until_true;
use sealane::local::{Federation, Lab, Process, inspect};
use sealane_tests::PATIENCE;
use sealane_tests::control_plane::{ControlPlane, Shape};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A cluster: its API server and the replicas of its agent, by name.
pub(crate) struct Member {
    // In this order: whoever asks ends before who is asked.
    pub(crate) agents: BTreeMap<&'static str, Process>,
    pub(crate) plane: ControlPlane,
    lab: Lab,
    place: u8,
    token: PathBuf,
}

impl Member {
    /// A cluster with a token, and without an agent yet. Places of members are apart by two.
    pub(crate) async fn enrol(federation: &Federation, lab: &Lab, shape: Shape, place: u8) -> Result<Self> {
        let plane = ControlPlane::start(lab, shape).await?;
        crds(&plane).await?;
        for namespace in ["sealane-system", "shop"] {
            plane.kubectl(&["create", "namespace", namespace]).await?;
        }
        let token = lab.directory(plane.name())?.join("join.token");
        let out = token.to_string_lossy().into_owned();
        federation.sealane(&["token", "create", "--cluster", plane.name(), "--out", &out]).await?;
        Ok(Member { agents: BTreeMap::new(), plane, lab: lab.clone(), place, token })
    }

    /// Starts a replica that does not run, as an admin of the cluster or as whoever the kubeconfig is of.
    pub(crate) async fn start(&mut self, replica: &'static str, kubeconfig: Option<&Path>) -> Result<()> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let name = self.plane.name();
        let state = text(&self.state(replica)?);
        let kubeconfig = text(kubeconfig.unwrap_or_else(|| self.plane.kubeconfig()));
        let (listen, admin) = (self.listens(replica), self.admin(replica).to_string());
        let mut words = vec!["agent", "run", "--source", "kubernetes", "--namespace", "sealane-system"];
        words.extend(["--network", "flat", "--replica", replica, "--dir", &state]);
        words.extend(["--kubeconfig", &kubeconfig, "--listen", &listen, "--admin-listen", &admin]);
        let token = text(&self.token);
        words.extend(["--join-token-file", &token]);
        let process = self.lab.launcher().start(&format!("{name}-{replica}"), &words)?;
        self.agents.insert(replica, process);
        self.agents.get_mut(replica).context("it was just started")?.ready().await
    }

    /// A replica that runs.
    pub(crate) fn agent(&self, replica: &str) -> Result<&Process> {
        self.agents.get(replica).with_context(|| format!("no replica {replica} runs"))
    }

    /// The directory of a replica.
    pub(crate) fn state(&self, replica: &str) -> Result<PathBuf> {
        Ok(self.lab.directory(self.plane.name())?.join(replica))
    }

    /// Where a replica serves proxies.
    pub(crate) fn listens(&self, replica: &str) -> String {
        self.address(replica, 15_000).to_string()
    }

    fn address(&self, replica: &str, port: u16) -> SocketAddr {
        let host = replica.bytes().next().map_or(1, |letter| letter - b'a' + 1);
        self.lab.socket(self.place, host, port)
    }

    fn admin(&self, replica: &str) -> SocketAddr {
        self.address(replica, 15_100)
    }

    /// What a replica says of itself.
    pub(crate) async fn status(&self, replica: &str) -> Result<Value> {
        inspect::agent(self.admin(replica)).await
    }

    /// Waits until a replica says what is expected of it.
    pub(crate) async fn says(&self, what: &str, replica: &str, so: impl Fn(&Value) -> bool) -> Result<()> {
        until_true(what, PATIENCE, async || {
            let status = self.status(replica).await?;
            let brief = json!({"source": status["source"], "lease": status["lease"], "output": status["output"],
                "session": status["session"]});
            ensure!(so(&status), "it says {brief}");
            Ok(true)
        })
        .await?;
        Ok(())
    }

    /// Waits until replica `a` counts so many, in the sum over these labels.
    pub(crate) async fn counts(&self, metric: &str, labels: &[(&str, &str)], expected: u64) -> Result<()> {
        let name = format!("sealane_agent_{metric}");
        let what = format!("{name}{labels:?} of {} is {expected}", self.plane.name());
        until_true(&what, PATIENCE, async || {
            let found = inspect::metric(self.admin("a"), &name, labels).await?;
            ensure!(found == expected, "it is {found}");
            Ok(true)
        })
        .await?;
        Ok(())
    }

    /// A slice of `shop/NAME`, `NAME-1`, with these addresses.
    pub(crate) fn slice(name: &str, addresses: &[&str]) -> Value {
        let endpoints: Vec<Value> =
            addresses.iter().map(|a| json!({"addresses": [a], "conditions": {"ready": true}})).collect();
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{name}-1"), "namespace": "shop",
                "labels": {"kubernetes.io/service-name": name}},
            "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]})
    }

    /// Serves `shop/NAME` at an address, by a Service and its slice.
    pub(crate) async fn serve(&self, name: &str, port: u16, address: &str) -> Result<()> {
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ports": [{"name": "http", "port": port}]}});
        let items = [service, Member::slice(name, &[address])];
        self.plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).await
    }

    /// Exports it.
    pub(crate) async fn export(&self, name: &str) -> Result<()> {
        self.plane
            .apply(&format!(
                r#"{{"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
                "metadata": {{"name": "{name}", "namespace": "shop"}}}}"#
            ))
            .await
    }

    /// Waits until the import is ready and its slices, for kube-proxy, have exactly these addresses.
    pub(crate) async fn imports(&self, name: &str, addresses: &[&str]) -> Result<()> {
        let what = format!("{} imports shop/{name} at {addresses:?}", self.plane.name());
        until_true(&what, PATIENCE, async || {
            let import = object(&self.plane, &format!("serviceimport/{name}")).await?;
            let ready = &import["status"]["conditions"][0];
            ensure!(ready["status"] == "True", "{ready}");
            let found = self.served(name).await?;
            ensure!(found == addresses, "found {found:?}");
            Ok(true)
        })
        .await?;
        Ok(())
    }

    /// The addresses that kube-proxy is shown.
    pub(crate) async fn served(&self, name: &str) -> Result<Vec<String>> {
        let import = object(&self.plane, &format!("serviceimport/{name}")).await?;
        let derived = &import["metadata"]["annotations"]["multicluster.kubernetes.io/derived-service"];
        let selector =
            format!("kubernetes.io/service-name={}", derived.as_str().context("no derived Service")?);
        let list = ["get", "endpointslices", "--namespace=shop", "--output=json", "--selector", &selector];
        let list: Value = serde_json::from_str(&self.plane.kubectl(&list).await?)?;
        let slices = list["items"].as_array().context("items")?.iter();
        let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        let addresses = endpoints.filter_map(|e| Some(e["addresses"][0].as_str()?.to_owned()));
        let mut addresses: Vec<String> = addresses.collect();
        addresses.sort();
        Ok(addresses)
    }

    /// Waits until a condition of an export is so.
    pub(crate) async fn condition(&self, name: &str, condition: &str, reason: &str) -> Result<()> {
        let what = format!("{condition} of the export shop/{name} in {} is {reason}", self.plane.name());
        until_true(&what, PATIENCE, async || {
            let export = object(&self.plane, &format!("serviceexport/{name}")).await?;
            let conditions = export["status"]["conditions"].as_array().context("no conditions")?;
            let found = conditions.iter().find(|c| c["type"] == condition).context("no such condition")?;
            ensure!(found["reason"] == reason, "{found}");
            Ok(true)
        })
        .await?;
        Ok(())
    }

    /// What of ours there is in the namespace.
    pub(crate) async fn ours(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (kind, label) in [
            ("serviceimports", "app.kubernetes.io/managed-by=sealane-agent"),
            ("services", "app.kubernetes.io/managed-by=sealane-agent"),
            ("endpointslices", "endpointslice.kubernetes.io/managed-by=sealane-agent"),
        ] {
            let list = ["get", kind, "--namespace=shop", "--selector", label, "--output=name"];
            names.extend(self.plane.kubectl(&list).await?.lines().map(str::to_owned));
        }
        Ok(names)
    }
}

/// Two members, each with one replica.
pub(crate) async fn pair(lab: &Lab) -> Result<(Federation, Member, Member)> {
    pair_of(lab, &[]).await
}

/// The same, whose API servers have further arguments.
pub(crate) async fn pair_of(lab: &Lab, arguments: &[&str]) -> Result<(Federation, Member, Member)> {
    let federation = Federation::of(lab, 1).await?;
    let shape = |name, place| arguments.iter().fold(Shape::new(name, place), |shape, word| shape.with(word));
    let mut east = Member::enrol(&federation, lab, shape("east", 1), 1).await?;
    let mut west = Member::enrol(&federation, lab, shape("west", 3), 3).await?;
    east.start("a", None).await?;
    west.start("a", None).await?;
    Ok((federation, east, west))
}
