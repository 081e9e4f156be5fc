//! A cluster of one API server with replicas of an agent, and the federation of one server that it joins.

use anyhow::{Context, Result};
use sealane::local::{Federation, Lab, Process, inspect, wait};
use sealane_tests::PATIENCE;
use sealane_tests::control_plane::{ControlPlane, Shape};
use sealane_trust::file::{self, Access};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The network of a lab in which the replicas listen.
const NETWORK: u8 = 14;

/// The cluster. Dropping it ends it.
pub(crate) struct East {
    // In this order: whoever asks ends before who is asked.
    pub(crate) replicas: BTreeMap<&'static str, Process>,
    pub(crate) plane: ControlPlane,
    pub(crate) federation: Federation,
    /// By what it joins: arguments of the agent.
    entry: Vec<String>,
    /// How the cluster was added to the federation: arguments of `sealane cluster add`.
    added: Vec<String>,
    token: PathBuf,
    lab: Lab,
}

/// Where the federation has the keys of the cluster's issuer from.
pub(crate) enum Issuer {
    /// From a file.
    Stated,
    /// From the API server itself.
    Fetched,
}

impl East {
    /// A cluster without an agent, and with a token for one.
    pub(crate) async fn new(lab: &Lab) -> Result<Self> {
        let mut east = East::bare(lab, Shape::new("east", 1)).await?;
        let out = east.token.to_string_lossy().into_owned();
        east.federation.sealane(&["token", "create", "--cluster", "east", "--out", &out]).await?;
        east.entry = vec!["--join-token-file".to_owned(), out];
        Ok(east)
    }

    /// A cluster without an agent, and with no way in.
    async fn bare(lab: &Lab, shape: Shape) -> Result<Self> {
        let federation = Federation::found(lab, &[]).await?;
        let plane = ControlPlane::start(lab, shape).await?;
        for namespace in ["sealane-system", "shop"] {
            plane.kubectl(&["create", "namespace", namespace]).await?;
        }
        let (token, lab) = (lab.path().join("east.token"), lab.clone());
        let (replicas, entry, added) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(East { replicas, plane, federation, entry, added, token, lab })
    }

    /// A cluster that may join by tokens of its ServiceAccount `sealane-agent`; there is none in the file yet.
    pub(crate) async fn added(lab: &Lab, issuer: Issuer) -> Result<Self> {
        let shape = match issuer {
            Issuer::Stated => Shape::new("east", 1),
            Issuer::Fetched => Shape::new("east", 1).issuing_under_its_address(),
        };
        let mut east = East::bare(lab, shape).await?;
        east.plane
            .kubectl(&["create", "serviceaccount", "sealane-agent", "--namespace=sealane-system"])
            .await?;
        east.define(&["v1beta1", "v1alpha1"]).await?;
        let file = |path: &Path| path.display().to_string();
        east.added = match issuer {
            Issuer::Stated => {
                let jwks = lab.path().join("east.jwks");
                std::fs::write(&jwks, east.plane.kubectl(&["get", "--raw", "/openid/v1/jwks"]).await?)?;
                vec!["--jwks".to_owned(), file(&jwks)]
            }
            Issuer::Fetched => {
                let url = format!("https://{}", east.plane.address());
                vec!["--oidc-issuer".to_owned(), url, "--oidc-ca".to_owned(), file(&east.plane.authority())]
            }
        };
        east.add().await?;
        Ok(east)
    }

    /// Adds the cluster to the federation, or once more, and has its agents join by what that printed.
    pub(crate) async fn add(&mut self) -> Result<()> {
        let mut words = vec!["-o", "json", "cluster", "add", "east"];
        words.extend(self.added.iter().map(String::as_str));
        let printed: Value = serde_json::from_str(&self.federation.sealane(&words).await?)?;
        let text = |field: &str| printed[field].as_str().unwrap_or_default().to_owned();
        self.entry = vec![format!("--join-token-projected={}", self.token.display())];
        self.entry.push(format!("--join-cluster={}", text("cluster")));
        self.entry.push(format!("--join-federation={}", text("federation")));
        self.entry.push(format!("--join-root={}", text("root")));
        for server in printed["servers"].as_array().context("servers")? {
            self.entry.push(format!("--join-server={}", server.as_str().unwrap_or_default()));
        }
        Ok(())
    }

    /// The audience of tokens for the federation.
    pub(crate) fn audience(&self) -> String {
        let stated = self.entry.iter().find_map(|word| word.strip_prefix("--join-federation="));
        stated.unwrap_or_default().to_owned()
    }

    /// Puts a new token of a ServiceAccount of `sealane-system` where the agent finds it, as the kubelet does.
    pub(crate) async fn project(&self, account: &str, audience: &str) -> Result<()> {
        self.project_of(&self.plane, account, audience).await
    }

    /// The same, of another cluster.
    pub(crate) async fn project_of(&self, plane: &ControlPlane, account: &str, audience: &str) -> Result<()> {
        let audience = format!("--audience={audience}");
        let words = ["create", "token", account, "--namespace=sealane-system", "--duration=10m", &audience];
        let token = plane.kubectl(&words).await?;
        Ok(file::write(&self.token, token.as_bytes(), Access::Private)?)
    }

    /// With the CRDs.
    pub(crate) async fn with_crds(lab: &Lab) -> Result<Self> {
        let east = East::new(lab).await?;
        east.define(&["v1beta1", "v1alpha1"]).await?;
        Ok(east)
    }

    /// Defines ServiceExport in these versions; the first one is stored.
    pub(crate) async fn define(&self, versions: &[&str]) -> Result<()> {
        let schema = json!({"openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        }});
        let version = |(at, name): (usize, &&str)| json!({"name": name, "served": true, "storage": at == 0, "subresources": {"status": {}}, "schema": schema});
        let versions: Vec<Value> = versions.iter().enumerate().map(version).collect();
        let approved = "https://github.com/kubernetes-sigs/mcs-api";
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "serviceexports.multicluster.x-k8s.io",
                "annotations": {"api-approved.kubernetes.io": approved}},
            "spec": {"group": "multicluster.x-k8s.io", "scope": "Namespaced", "versions": versions,
                "names": {"plural": "serviceexports", "singular": "serviceexport", "kind": "ServiceExport",
                    "listKind": "ServiceExportList"}},
        });
        self.plane.apply(&crd.to_string()).await?;
        let name = "crd/serviceexports.multicluster.x-k8s.io";
        self.plane.kubectl(&["wait", "--for=condition=Established", name]).await?;
        Ok(())
    }

    /// Exports `shop/cart`, whose endpoints are in two slices.
    pub(crate) async fn export(&self, version: &str) -> Result<()> {
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "cart", "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}});
        let export = json!({"apiVersion": format!("multicluster.x-k8s.io/{version}"), "kind": "ServiceExport",
            "metadata": {"name": "cart", "namespace": "shop"}});
        self.plane
            .apply(&list(&[service, slice("cart-1", "10.0.0.1"), slice("cart-2", "10.0.0.2"), export]))
            .await
    }

    /// Puts slices of `shop/cart` in place.
    pub(crate) async fn slices(&self, slices: &[(&str, &str)]) -> Result<()> {
        let slices: Vec<Value> = slices.iter().map(|(name, address)| slice(name, address)).collect();
        self.plane.apply(&list(&slices)).await
    }

    /// Starts a replica, as an admin of the cluster or as whoever the kubeconfig is of.
    pub(crate) fn start(&mut self, replica: &'static str, kubeconfig: Option<&Path>) -> Result<()> {
        let kubeconfig = kubeconfig.unwrap_or_else(|| self.plane.kubeconfig()).display().to_string();
        let directory = self.lab.path().join(format!("east-{replica}")).display().to_string();
        let listen = self.address(replica, 7450).to_string();
        let admin = self.admin(replica).to_string();
        let arguments = [
            "agent",
            "run",
            "--source",
            "kubernetes",
            "--dir",
            &directory,
            "--kubeconfig",
            &kubeconfig,
            "--namespace",
            "sealane-system",
            "--replica",
            replica,
            "--listen",
            &listen,
            "--admin-listen",
            &admin,
        ];
        let arguments: Vec<&str> =
            arguments.into_iter().chain(self.entry.iter().map(String::as_str)).collect();
        let process = self.lab.launcher().start(&format!("east-{replica}"), &arguments)?;
        self.replicas.insert(replica, process);
        Ok(())
    }

    /// Starts a replica, and waits until it serves.
    pub(crate) async fn started(&mut self, replica: &'static str) -> Result<()> {
        self.start(replica, None)?;
        self.replica(replica)?;
        self.replicas.get_mut(replica).context("it was just started")?.ready().await
    }

    pub(crate) fn replica(&self, replica: &str) -> Result<&Process> {
        self.replicas.get(replica).with_context(|| format!("no replica {replica} runs"))
    }

    fn address(&self, replica: &str, port: u16) -> SocketAddr {
        let host = replica.bytes().next().map_or(1, |letter| letter - b'a' + 1);
        self.lab.socket(NETWORK, host, port)
    }

    fn admin(&self, replica: &str) -> SocketAddr {
        self.address(replica, 7451)
    }

    /// What a replica says of itself.
    pub(crate) async fn status(&self, replica: &str) -> Result<Value> {
        inspect::agent(self.admin(replica)).await
    }

    /// Waits until a replica says what is expected of it.
    pub(crate) async fn until(
        &self,
        what: &str,
        replica: &str,
        expected: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let looked = wait::until(what, PATIENCE, async || {
            let status = self.status(replica).await?;
            anyhow::ensure!(expected(&status), "it says {}", brief(&status));
            Ok(Some(status))
        });
        Ok(looked.await?.0)
    }
}

fn brief(status: &Value) -> Value {
    json!({"source": status["source"], "session": status["session"], "lease": status["lease"],
        "exports": status["exports"], "not_ready": status["not_ready"]})
}

/// How many endpoints of `shop/cart` are known.
pub(crate) fn endpoints(status: &Value) -> Option<u64> {
    status["exports"]["shop/cart"]["endpoints"].as_u64()
}

/// What can not be read.
pub(crate) fn unavailable(status: &Value) -> &str {
    status["source"]["unavailable"].as_str().unwrap_or_default()
}

fn slice(name: &str, address: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}]})
}

fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}
