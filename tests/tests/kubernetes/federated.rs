//! Two Kubernetes API servers, an agent in each, one federation: what one exports is imported by the other.

use super::sink::{crds, object, with_plane};
use anyhow::{Context, Result, ensure};
use sealane::local::wait::until_true;
use sealane::local::{Federation, Lab, Process};
use sealane_tests::PATIENCE;
use sealane_tests::control_plane::{ControlPlane, Shape};
use serde_json::Value;
use std::path::PathBuf;

/// A cluster: its API server and its agent.
struct Member {
    plane: ControlPlane,
    lab: Lab,
    place: u8,
    token: Option<PathBuf>,
    agent: Option<Process>,
}

impl Member {
    async fn enrol(federation: &Federation, lab: &Lab, name: &str, place: u8) -> Result<Self> {
        let plane = ControlPlane::start(lab, Shape::new(name, place)).await?;
        crds(&plane).await?;
        for namespace in ["sealane-system", "shop"] {
            plane.kubectl(&["create", "namespace", namespace]).await?;
        }
        let token = lab.directory(name)?.join("join.token");
        let out = token.to_string_lossy().into_owned();
        federation.sealane(&["token", "create", "--cluster", name, "--out", &out]).await?;
        let mut member = Member { plane, lab: lab.clone(), place, token: Some(token), agent: None };
        member.start().await?;
        Ok(member)
    }

    /// Starts its agent, which does not run.
    async fn start(&mut self) -> Result<()> {
        let name = self.plane.name();
        let state = self.lab.directory(name)?.join("agent");
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let mut words =
            ["agent", "run", "--source", "kubernetes", "--namespace", "sealane-system", "--network", "flat"]
                .map(str::to_owned)
                .to_vec();
        let listen = self.lab.socket(self.place, 1, 15_000).to_string();
        let admin = self.lab.socket(self.place, 1, 15_100).to_string();
        words.extend([
            "--dir".to_owned(),
            text(&state),
            "--kubeconfig".to_owned(),
            text(self.plane.kubeconfig()),
        ]);
        words.extend(["--listen".to_owned(), listen, "--admin-listen".to_owned(), admin]);
        if let Some(token) = self.token.take() {
            words.extend(["--join-token-file".to_owned(), text(&token)]);
        }
        let launcher = self.lab.launcher().with(&[("POD_NAME".to_owned(), format!("{name}-0"))]);
        let agent = self.agent.insert(launcher.start(&format!("{name}-agent"), &words)?);
        agent.ready().await
    }

    /// Serves `shop/NAME` at an address, by a Service and its slice.
    async fn serve(&self, name: &str, port: u16, address: &str) -> Result<()> {
        self.plane
            .apply(&format!(
                r#"{{"apiVersion": "v1", "kind": "List", "items": [
                {{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}", "namespace": "shop"}},
                  "spec": {{"ports": [{{"name": "http", "port": {port}}}]}}}},
                {{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                  "metadata": {{"name": "{name}-1", "namespace": "shop", "labels": {{"kubernetes.io/service-name": "{name}"}}}},
                  "endpoints": [{{"addresses": ["{address}"], "conditions": {{"ready": true}}}}],
                  "ports": [{{"name": "http", "port": 8080, "protocol": "TCP"}}]}}]}}"#
            ))
            .await
    }

    async fn export(&self, name: &str) -> Result<()> {
        self.plane
            .apply(&format!(
                r#"{{"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
                "metadata": {{"name": "{name}", "namespace": "shop"}}}}"#
            ))
            .await
    }

    /// Waits until the import is ready and its slices, for kube-proxy, have exactly these addresses.
    async fn imports(&self, name: &str, addresses: &[&str]) -> Result<()> {
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
    async fn served(&self, name: &str) -> Result<Vec<String>> {
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
    async fn condition(&self, name: &str, condition: &str, reason: &str) -> Result<()> {
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
    async fn ours(&self) -> Result<Vec<String>> {
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

async fn pair(lab: &Lab) -> Result<(Federation, Member, Member)> {
    let federation = Federation::of(lab, 1).await?;
    let east = Member::enrol(&federation, lab, "east", 1).await?;
    let west = Member::enrol(&federation, lab, "west", 3).await?;
    Ok((federation, east, west))
}

#[test]
fn a_service_goes_from_cluster_to_cluster_and_back() {
    with_plane("a_service_goes_from_cluster_to_cluster_and_back", async |lab| {
        let (_federation, east, west) = pair(lab).await?;
        west.export("web").await?;
        west.condition("web", "Valid", "NoService").await?;
        west.plane.kubectl(&["delete", "serviceexport/web", "--namespace=shop"]).await?;

        east.serve("web", 80, "10.1.0.1").await?;
        east.export("web").await?;
        west.imports("web", &["10.1.0.1"]).await?;
        east.imports("web", &["10.1.0.1"]).await?;
        let wait =
            ["wait", "--for=condition=Ready", "serviceexport/web", "--namespace=shop", "--timeout=20s"];
        east.plane.kubectl(&wait).await?;
        east.condition("web", "Conflict", "NoConflicts").await?;

        // The own endpoints come first; with none left the others' do.
        west.serve("web", 80, "10.2.0.1").await?;
        west.export("web").await?;
        west.imports("web", &["10.2.0.1"]).await?;
        east.imports("web", &["10.1.0.1"]).await?;
        west.plane.kubectl(&["delete", "endpointslice/web-1", "--namespace=shop"]).await?;
        west.imports("web", &["10.1.0.1"]).await?;
        west.serve("web", 80, "10.2.0.1").await?;
        west.imports("web", &["10.2.0.1"]).await?;

        // Both are told when they disagree, and when they agree again.
        west.serve("web", 81, "10.2.0.1").await?;
        west.plane.kubectl(&["patch", "service/web", "--namespace=shop", "--type=json", "--patch",
            r#"[{"op": "replace", "path": "/spec/ports", "value": [{"name": "http", "port": 81, "protocol": "TCP"}]}]"#]).await?;
        east.condition("web", "Conflict", "PortConflict").await?;
        west.condition("web", "Conflict", "PortConflict").await?;
        west.imports("web", &["10.1.0.1"]).await?;
        west.plane.kubectl(&["delete", "serviceexport/web", "--namespace=shop"]).await?;
        east.condition("web", "Conflict", "NoConflicts").await?;

        east.plane.kubectl(&["delete", "serviceexport/web", "--namespace=shop"]).await?;
        for member in [&east, &west] {
            let what = format!("nothing is left in {}", member.plane.name());
            until_true(&what, PATIENCE, async || Ok(member.ours().await?.is_empty())).await?;
        }
        Ok(())
    });
}

#[test]
fn a_namespace_that_is_absent_gets_nothing_until_it_is_there() {
    with_plane("a_namespace_that_is_absent_gets_nothing_until_it_is_there", async |lab| {
        let (_federation, east, west) = pair(lab).await?;
        west.plane.kubectl(&["delete", "namespace", "shop", "--wait=false"]).await?;
        // Without controllers a namespace does not end by itself.
        let end = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}, "spec": {"finalizers": []}}"#;
        let file = lab.path().join("end.json");
        std::fs::write(&file, end)?;
        let file = file.to_string_lossy().into_owned();
        west.plane
            .kubectl(&["replace", "--raw", "/api/v1/namespaces/shop/finalize", "--filename", &file])
            .await?;
        east.serve("web", 80, "10.1.0.1").await?;
        east.export("web").await?;
        east.imports("web", &["10.1.0.1"]).await?;
        assert!(west.plane.kubectl(&["get", "namespace", "shop"]).await.is_err());
        west.plane.kubectl(&["create", "namespace", "shop"]).await?;
        west.imports("web", &["10.1.0.1"]).await?;
        Ok(())
    });
}

#[test]
fn an_agent_that_comes_back_finds_everything_as_it_was() {
    with_plane("an_agent_that_comes_back_finds_everything_as_it_was", async |lab| {
        let (mut federation, east, mut west) = pair(lab).await?;
        east.serve("web", 80, "10.1.0.1").await?;
        east.export("web").await?;
        west.imports("web", &["10.1.0.1"]).await?;
        let all = ["get", "serviceimports,services,endpointslices", "--namespace=shop", "--output=json"];
        let items =
            |text: String| -> Result<Value> { Ok(serde_json::from_str::<Value>(&text)?["items"].clone()) };
        let before = items(west.plane.kubectl(&all).await?)?;
        if let Some(agent) = west.agent.take() {
            agent.kill();
        }
        // The store is away, too: the agent serves from its last view, and takes nothing away.
        federation.kill_all();
        west.plane.kill_server();
        west.plane.restart_server().await?;
        west.start().await?;
        west.imports("web", &["10.1.0.1"]).await?;
        assert_eq!(items(west.plane.kubectl(&all).await?)?, before);
        federation.start_all().await?;
        east.serve("web", 80, "10.1.0.2").await?;
        west.imports("web", &["10.1.0.2"]).await?;
        Ok(())
    });
}
