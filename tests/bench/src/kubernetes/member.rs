//! A member of the federation: a real Kubernetes API server, and one agent beside it.

use crate::listener;
use anyhow::{Context, Result};
use kube::Client;
use sealane::local::{Federation, Lab, Process, inspect};
use sealane_tests::charts;
use sealane_tests::control_plane::{ControlPlane, Shape};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The network of a lab in which agents listen.
const NETWORK: u8 = 14;

/// A cluster. Dropping it ends it.
pub(super) struct Member {
    // In this order: whoever asks ends before who is asked.
    pub(super) agent: Option<Process>,
    pub(super) plane: ControlPlane,
    pub(super) client: Client,
    lab: Lab,
    place: u8,
    token: PathBuf,
}

impl Member {
    /// Starts a cluster, has it admitted, and starts its agent.
    pub(super) async fn enrol(federation: &Federation, lab: &Lab, name: &str, place: u8) -> Result<Self> {
        let plane = ControlPlane::start(lab, Shape::new(name, place)).await?;
        let crds = charts::path("sealane-crds").join("files").to_string_lossy().into_owned();
        plane.kubectl(&["apply", "--server-side", "--filename", &crds]).await?;
        plane.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).await?;
        for namespace in ["sealane-system", listener::NAMESPACE] {
            plane.kubectl(&["create", "namespace", namespace]).await?;
        }
        let token = lab.directory(name)?.join("join.token");
        federation.sealane(&["token", "create", "--cluster", name, "--out", &text(&token)]).await?;
        let access = sealane_agent::args::Kubernetes {
            kubeconfig: Some(plane.kubeconfig().to_owned()),
            context: None,
            namespace: "sealane-system".parse()?,
            replica: "bench".to_owned(),
        };
        let client = sealane_agent::kubernetes::client(&access).await?;
        let mut member = Member { agent: None, plane, client, lab: lab.clone(), place, token };
        member.start().await?;
        Ok(member)
    }

    /// Starts its agent, which does not run.
    pub(super) async fn start(&mut self) -> Result<()> {
        let directory = text(&self.directory()?);
        let (listen, admin) = (self.address(7450).to_string(), self.admin().to_string());
        let (kubeconfig, token) = (text(self.plane.kubeconfig()), text(&self.token));
        let mut words = vec!["agent", "run", "--source", "kubernetes", "--namespace", "sealane-system"];
        words.extend(["--network", "flat", "--replica", "a", "--dir", &directory]);
        words.extend(["--kubeconfig", &kubeconfig, "--listen", &listen, "--admin-listen", &admin]);
        words.extend(["--join-token-file", &token]);
        let name = format!("{}-agent", self.plane.name());
        self.agent.insert(self.lab.launcher().start(&name, &words)?).ready().await
    }

    /// A token for the proxy that listens.
    pub(super) async fn listener(&self) -> Result<PathBuf> {
        let (directory, file) = (text(&self.directory()?), self.directory()?.join("listener.token"));
        // One of a former listener is of no use any more, and none is written over another.
        if file.exists() {
            std::fs::remove_file(&file)?;
        }
        let out = text(&file);
        let mut words = vec!["agent", "workload-token", "--dir", &directory];
        words.extend(listener::WHOM);
        words.extend(["--out", &out]);
        self.lab.launcher().run(&words).await?;
        Ok(file)
    }

    /// What the agent says of itself.
    pub(super) async fn status(&self) -> Result<Value> {
        inspect::agent(self.admin()).await
    }

    /// Its agent, which runs.
    pub(super) fn agent(&self) -> Result<&Process> {
        self.agent.as_ref().context("the agent does not run")
    }

    fn directory(&self) -> Result<PathBuf> {
        Ok(self.lab.directory(self.plane.name())?.join("agent"))
    }

    fn address(&self, port: u16) -> SocketAddr {
        self.lab.socket(NETWORK, self.place, port)
    }

    fn admin(&self) -> SocketAddr {
        self.address(7451)
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
