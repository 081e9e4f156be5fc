//! One cluster on this machine: its manifests, its agent, its gateway and its pods.

use super::federation::{Federation, words};
use super::lab::Lab;
use super::manifests;
use super::pod::{Pod, PodSpec};
use super::process::{Launcher, Process};
use super::relay::Relay;
use super::wait;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The hosts of a site's own network.
const AGENT: u8 = 1;
const GATEWAY: u8 = 2;
const GATEWAY_TAP: u8 = 3;
const THIEF: u8 = 4;

/// How long a stranger may wait for its refusal.
const REFUSAL: Duration = Duration::from_secs(20);

/// How a cluster is set up.
#[derive(Debug, Clone)]
pub struct SiteSpec {
    /// The cluster's name.
    pub name: String,
    /// The network of its endpoints; its own when absent.
    pub network: Option<String>,
    /// Which network of the block its agent and gateway live in; its imports get the next one.
    pub block: u8,
    /// Whether a recording relay stands before the gateway, so that others dial that.
    pub tap_gateway: bool,
    /// Options of `sealane token create` beside the name.
    pub grants: Vec<String>,
    /// Options of `sealane agent run` beside what places it.
    pub agent: Vec<String>,
    /// Options of `sealane proxy` for its gateway and its sidecars.
    pub proxies: Vec<String>,
    /// Environment variables of all its processes.
    pub environment: Vec<(String, String)>,
}

impl SiteSpec {
    /// A cluster in a network of its own.
    #[must_use]
    pub fn new(name: &str, block: u8) -> Self {
        SiteSpec {
            name: name.into(),
            network: None,
            block,
            tap_gateway: false,
            grants: Vec::new(),
            agent: Vec::new(),
            proxies: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The same in another network.
    #[must_use]
    pub fn in_network(mut self, network: &str) -> Self {
        self.network = Some(network.into());
        self
    }

    /// The same with a recording relay before its gateway.
    #[must_use]
    pub fn tapped(mut self) -> Self {
        self.tap_gateway = true;
        self
    }
}

/// A cluster.
#[derive(Debug)]
pub struct Site {
    lab: Lab,
    spec: SiteSpec,
    root: PathBuf,
    /// Its agent, while it runs.
    pub agent: Option<Process>,
    /// Its gateway, while it runs.
    pub gateway: Option<Process>,
    /// The relay before the gateway, if it has one.
    pub gateway_tap: Option<Relay>,
    /// Its pods, by name.
    pub pods: BTreeMap<String, Pod>,
}

impl Site {
    /// Enrols a cluster and starts its agent and its gateway.
    ///
    /// # Errors
    /// When any of the commands fails.
    pub async fn enrol(federation: &Federation, lab: &Lab, spec: SiteSpec) -> Result<Self> {
        let root = lab.directory(&spec.name)?;
        for directory in ["manifests", "out", "tokens"] {
            lab.directory(&format!("{}/{directory}", spec.name))?;
        }
        let token = root.join("join.token");
        let mut arguments: Vec<&str> = vec!["token", "create", "--cluster", &spec.name];
        arguments.extend(spec.grants.iter().map(String::as_str));
        let out = token.to_string_lossy().into_owned();
        arguments.extend(["--out", &out]);
        federation.sealane(&arguments).await?;
        let mut site = Site {
            lab: lab.clone(),
            spec,
            root,
            agent: None,
            gateway: None,
            gateway_tap: None,
            pods: BTreeMap::new(),
        };
        site.apply("shop.namespace", &manifests::namespace("shop"))?;
        site.start_agent().await?;
        site.start_gateway().await?;
        Ok(site)
    }

    /// Starts its processes.
    #[must_use]
    pub fn launcher(&self) -> Launcher {
        self.lab.launcher().with(&self.spec.environment)
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// How it is set up.
    #[must_use]
    pub fn spec(&self) -> &SiteSpec {
        &self.spec
    }

    /// Where its agent shows its status.
    #[must_use]
    pub fn agent_admin(&self) -> SocketAddr {
        self.lab.socket(self.spec.block, AGENT, 15_100)
    }

    /// Where its proxies dial its agent.
    #[must_use]
    pub fn agent_listen(&self) -> SocketAddr {
        self.lab.socket(self.spec.block, AGENT, 15_000)
    }

    /// Where its gateway listens.
    #[must_use]
    pub fn gateway_listen(&self) -> SocketAddr {
        self.lab.socket(self.spec.block, GATEWAY, 15_443)
    }

    /// Where its gateway shows its status.
    #[must_use]
    pub fn gateway_admin(&self) -> SocketAddr {
        self.lab.socket(self.spec.block, GATEWAY, 15_100)
    }

    /// Where other clusters dial its gateway.
    #[must_use]
    pub fn gateway_address(&self) -> SocketAddr {
        if self.spec.tap_gateway {
            self.lab.socket(self.spec.block, GATEWAY_TAP, 15_443)
        } else {
            self.gateway_listen()
        }
    }

    /// Where its agent writes what it imports.
    #[must_use]
    pub fn out(&self) -> PathBuf {
        self.root.join("out")
    }

    /// Where its agent keeps its state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("agent")
    }

    /// Starts the agent, which joins with its token when it never has.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_agent(&mut self) -> Result<()> {
        let mut arguments = words(&["agent", "run", "--dir"]);
        arguments.push(self.state().into());
        let path = |name: &str| OsString::from(self.root.join(name));
        arguments.extend(["--manifests".into(), path("manifests"), "--out".into(), path("out")]);
        if !self.state().exists() {
            arguments.extend(["--join-token-file".into(), path("join.token")]);
        }
        let (listen, admin) = (self.agent_listen().to_string(), self.agent_admin().to_string());
        let (gateway, range) =
            (self.gateway_address().to_string(), self.lab.block().range(self.spec.block + 1));
        let network = self.spec.network.clone().unwrap_or_else(|| self.spec.name.clone());
        arguments.extend(words(&["--listen", &listen, "--admin-listen", &admin, "--gateway", &gateway]));
        arguments.extend(words(&["--address-range", &range, "--network", &network]));
        arguments.extend(self.spec.agent.iter().map(OsString::from));
        let name = format!("{}-agent", self.spec.name);
        self.agent.insert(self.launcher().start(&name, &arguments)?).ready().await
    }

    /// Starts another agent with this cluster's join token, and gives what it says when it is refused.
    ///
    /// # Errors
    /// When it is let in, or says nothing in time.
    pub async fn use_token_again(&self) -> Result<String> {
        let thief = self.root.join("thief");
        for directory in ["manifests", "out"] {
            std::fs::create_dir_all(thief.join(directory))?;
        }
        let path = |name: &str| OsString::from(thief.join(name));
        let mut arguments = words(&["agent", "run", "--join-token-file"]);
        arguments.push(self.root.join("join.token").into());
        arguments.extend(["--dir".into(), path("state"), "--manifests".into(), path("manifests")]);
        arguments.extend(["--out".into(), path("out")]);
        let (listen, admin) =
            (self.lab.socket(self.spec.block, THIEF, 0), self.lab.socket(self.spec.block, THIEF, 15_100));
        arguments.extend(words(&["--listen", &listen.to_string(), "--admin-listen", &admin.to_string()]));
        let agent = self.launcher().start(&format!("{}-thief", self.spec.name), &arguments)?;
        let (said, _) = wait::until("a used token is refused", REFUSAL, async || {
            let said = agent.said();
            let ready = said.lines().any(|line| line.contains("INFO") && line.ends_with("ready"));
            ensure!(!ready, "an agent was let in by a used token:\n{said}");
            Ok(said.lines().find(|line| line.contains("consumed by another key")).map(str::to_owned))
        })
        .await?;
        Ok(said)
    }

    /// Starts the gateway, and the relay before it if it has one.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_gateway(&mut self) -> Result<()> {
        if self.spec.tap_gateway && self.gateway_tap.is_none() {
            self.gateway_tap = Some(Relay::start(self.gateway_address(), self.gateway_listen()).await?);
        }
        let token = self.workload_token("gateway", &["--gateway"]).await?;
        let state = self.root.join("gateway");
        let mut arguments = words(&["proxy", "--role", "gateway", "--token-file"]);
        arguments.extend([token.into(), "--dir".into(), state.into()]);
        let (inbound, admin) = (self.gateway_listen().to_string(), self.gateway_admin().to_string());
        let advertise = self.gateway_address().to_string();
        arguments.extend(words(&["--inbound", &inbound, "--advertise", &advertise, "--admin", &admin]));
        arguments.extend(self.spec.proxies.iter().map(OsString::from));
        let name = format!("{}-gateway", self.spec.name);
        self.gateway.insert(self.launcher().start(&name, &arguments)?).ready().await
    }

    /// Has the agent write a workload token, and gives its file.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn workload_token(&self, name: &str, whom: &[&str]) -> Result<PathBuf> {
        let suffix = sealane_trust::random::<4>().context("no random bytes")?;
        let file = self.root.join("tokens").join(format!("{name}-{:08x}", u32::from_be_bytes(suffix)));
        let mut arguments = words(&["agent", "workload-token", "--dir"]);
        arguments.push(self.state().into());
        arguments.extend(words(whom));
        arguments.extend([OsString::from("--out"), file.clone().into()]);
        self.lab.launcher().run(&arguments).await?;
        Ok(file)
    }

    /// Writes one manifest, whole.
    ///
    /// # Errors
    /// When it can not be written.
    pub fn apply(&self, name: &str, text: &str) -> Result<()> {
        // Written elsewhere and renamed: the agent reads whole files only.
        let (draft, place) = (self.root.join(format!("{name}.draft")), self.manifest(name));
        std::fs::write(&draft, text).with_context(|| format!("can not write {}", draft.display()))?;
        std::fs::rename(&draft, &place).with_context(|| format!("can not write {}", place.display()))
    }

    /// Removes one manifest.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove(&self, name: &str) -> Result<()> {
        let place = self.manifest(name);
        std::fs::remove_file(&place).with_context(|| format!("can not remove {}", place.display()))
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.root.join("manifests").join(format!("{name}.yaml"))
    }

    /// Writes a Service of one port, and no export of it.
    ///
    /// # Errors
    /// When it can not be written.
    pub fn serve(&self, namespace: &str, service: &str, port: u16) -> Result<()> {
        self.apply(&format!("{namespace}.{service}.service"), &manifests::service(namespace, service, port))
    }

    /// Exports a service.
    ///
    /// # Errors
    /// When the manifest can not be written.
    pub fn export(&self, namespace: &str, service: &str) -> Result<()> {
        self.apply(&format!("{namespace}.{service}.export"), &manifests::export(namespace, service))
    }

    /// Takes an export back.
    ///
    /// # Errors
    /// When there is none.
    pub fn unexport(&self, namespace: &str, service: &str) -> Result<()> {
        self.remove(&format!("{namespace}.{service}.export"))
    }

    /// Starts a pod: its application, its sidecar, and the manifests that describe it.
    ///
    /// # Errors
    /// When a process does not become ready.
    pub async fn start_pod(&mut self, spec: PodSpec) -> Result<()> {
        let name = spec.name.clone();
        let pod = Pod::start(self, &self.lab, spec).await?;
        self.pods.insert(name, pod);
        Ok(())
    }

    /// One of its pods.
    ///
    /// # Errors
    /// When there is none of the name.
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.get(name).with_context(|| format!("{} has no pod {name}", self.spec.name))
    }

    /// One of its pods, to be changed.
    ///
    /// # Errors
    /// When there is none of the name.
    pub fn pod_mut(&mut self, name: &str) -> Result<&mut Pod> {
        self.pods.get_mut(name).with_context(|| format!("{} has no pod {name}", self.spec.name))
    }

    /// SIGKILL to the agent alone.
    pub fn kill_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.kill();
        }
    }

    /// SIGKILL to everything that runs here, as when the power fails.
    pub fn kill_all(&mut self) {
        self.kill_agent();
        self.gateway_tap = None;
        if let Some(gateway) = self.gateway.take() {
            gateway.kill();
        }
        for pod in self.pods.values_mut() {
            pod.kill_all();
        }
    }

    /// A signal to everything that runs here.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pods = self.pods.values().flat_map(|p| p.app.iter().chain(&p.sidecar));
        self.agent.iter().chain(&self.gateway).chain(pods).try_for_each(|process| process.signal(signal))
    }

    /// Every process that should run, and does not: their names.
    pub fn ended(&mut self) -> Vec<String> {
        let own = self.agent.iter_mut().chain(self.gateway.iter_mut());
        let pods = self.pods.values_mut().flat_map(|p| p.app.iter_mut().chain(p.sidecar.iter_mut()));
        own.chain(pods).filter_map(|p| p.ended().map(|_| p.name().to_owned())).collect()
    }

    /// Where its files are.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}
