//! One pod on this machine: an application and its sidecar.

use super::federation::words;
use super::lab::Lab;
use super::manifests;
use super::process::Process;
use super::relay::Relay;
use super::site::Site;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// How a pod is set up.
#[derive(Debug, Clone)]
pub struct PodSpec {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its service account.
    pub account: String,
    /// Its address; it may be another cluster's pod's too.
    pub address: Ipv4Addr,
    /// The port of its application, if it has one.
    pub app: Option<u16>,
    /// The port of its sidecar's inbound listener.
    pub inbound: u16,
    /// The port of a recording relay before the sidecar, which the pod names as its inbound port.
    pub tap: Option<u16>,
    /// The services that it serves.
    pub serves: Vec<String>,
    /// The imports that it calls, `NAMESPACE/NAME:PORT`, and where its sidecar listens for each.
    pub calls: Vec<(String, SocketAddr)>,
    /// Options of `sealane proxy` beside what places its sidecar.
    pub options: Vec<String>,
}

impl PodSpec {
    /// A pod that serves.
    #[must_use]
    pub fn server(name: &str, account: &str, address: Ipv4Addr, app: u16, inbound: u16) -> Self {
        PodSpec { app: Some(app), ..PodSpec::client(name, account, address, inbound) }
    }

    /// A pod without an application.
    #[must_use]
    pub fn client(name: &str, account: &str, address: Ipv4Addr, inbound: u16) -> Self {
        PodSpec {
            namespace: "shop".into(),
            name: name.into(),
            account: account.into(),
            address,
            app: None,
            inbound,
            tap: None,
            serves: Vec::new(),
            calls: Vec::new(),
            options: Vec::new(),
        }
    }

    /// The same, as an endpoint of a service.
    #[must_use]
    pub fn of(mut self, service: &str) -> Self {
        self.serves.push(service.into());
        self
    }

    /// The same, with a recording relay before its sidecar.
    #[must_use]
    pub fn tapped(mut self, port: u16) -> Self {
        self.tap = Some(port);
        self
    }

    /// The same, calling an import at a port of its own address.
    #[must_use]
    pub fn calling(mut self, service: &str, port: u16, listen: u16) -> Self {
        let listen = SocketAddr::new(IpAddr::V4(self.address), listen);
        self.calls.push((format!("{}/{service}:{port}", self.namespace), listen));
        self
    }

    fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), port)
    }
}

/// A running pod.
#[derive(Debug)]
pub struct Pod {
    lab: Lab,
    cluster: String,
    /// How it is set up.
    pub spec: PodSpec,
    /// Where its sidecar shows its status.
    pub admin: SocketAddr,
    /// Where its sidecar keeps its state.
    pub state: PathBuf,
    /// Its application, while it runs.
    pub app: Option<Process>,
    /// Its sidecar, while it runs.
    pub sidecar: Option<Process>,
    /// The relay before its sidecar.
    pub tap: Option<Relay>,
}

impl Pod {
    pub(crate) async fn start(site: &Site, lab: &Lab, spec: PodSpec) -> Result<Self> {
        describe(site, &spec)?;
        let state = site.root().join(format!("sidecar-{}", spec.name));
        // On an address of its own: two pods may share theirs.
        let place = u8::try_from(site.pods.len()).unwrap_or(u8::MAX).saturating_add(20);
        let admin = lab.socket(site.spec().block, place, 15_100);
        let cluster = site.name().to_owned();
        let mut pod =
            Pod { lab: lab.clone(), cluster, spec, admin, state, app: None, sidecar: None, tap: None };
        pod.start_app().await?;
        pod.start_tap().await?;
        pod.start_sidecar(site).await?;
        Ok(pod)
    }

    /// Starts its application, if it has one.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_app(&mut self) -> Result<()> {
        let Some(port) = self.spec.app else { return Ok(()) };
        let (listen, identity) =
            (self.spec.socket(port).to_string(), format!("{}/{}", self.cluster, self.spec.name));
        let arguments = words(&["app", "--listen", &listen, "--name", &identity]);
        let name = format!("{}-{}-app", self.cluster, self.spec.name);
        self.app.insert(self.lab.launcher().start(&name, &arguments)?).ready().await
    }

    /// Starts its sidecar, by a new token.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_sidecar(&mut self, site: &Site) -> Result<()> {
        let spec = &self.spec;
        let whom = ["--namespace", &spec.namespace, "--service-account", &spec.account];
        let token = site.workload_token(&spec.name, &whom).await?;
        let mut arguments = words(&["proxy", "--role", "sidecar", "--token-file"]);
        arguments.extend([token.into(), "--dir".into(), self.state.clone().into()]);
        let (inbound, admin) = (spec.socket(spec.inbound).to_string(), self.admin.to_string());
        let advertise = spec.socket(spec.tap.unwrap_or(spec.inbound)).to_string();
        let pod = format!("{}/{}", spec.namespace, spec.name);
        arguments.extend(words(&["--pod", &pod, "--inbound", &inbound, "--advertise", &advertise]));
        arguments.extend(words(&["--admin", &admin]));
        for (service, listen) in &spec.calls {
            arguments.extend(words(&["--outbound", &format!("{service}={listen}")]));
        }
        arguments.extend(site.spec().proxies.iter().chain(&spec.options).map(OsString::from));
        let name = format!("{}-{}-sidecar", self.cluster, spec.name);
        self.sidecar.insert(site.launcher().start(&name, &arguments)?).ready().await
    }

    /// Starts the relay before its sidecar, if it has one.
    ///
    /// # Errors
    /// When its address can not be listened on.
    pub async fn start_tap(&mut self) -> Result<()> {
        if let Some(port) = self.spec.tap {
            self.tap = Some(Relay::start(self.spec.socket(port), self.spec.socket(self.spec.inbound)).await?);
        }
        Ok(())
    }

    /// SIGKILL to its application alone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_app(&mut self) -> Result<()> {
        self.app
            .take()
            .with_context(|| format!("the application of {} does not run", self.spec.name))?
            .kill();
        Ok(())
    }

    /// SIGKILL to everything of it.
    pub fn kill_all(&mut self) {
        self.tap = None;
        for process in [self.app.take(), self.sidecar.take()].into_iter().flatten() {
            process.kill();
        }
    }

    /// Where its sidecar listens for an import, `NAMESPACE/NAME:PORT`.
    ///
    /// # Errors
    /// When it does not call it.
    pub fn calls(&self, service: &str) -> Result<SocketAddr> {
        let found = self.spec.calls.iter().find(|(name, _)| name == service);
        found
            .map(|(_, listen)| *listen)
            .with_context(|| format!("{} does not call {service}", self.spec.name))
    }

    /// Where its inbound proxy is dialled.
    #[must_use]
    pub fn inbound(&self) -> SocketAddr {
        self.spec.socket(self.spec.tap.unwrap_or(self.spec.inbound))
    }
}

/// Writes what an API server would know of the pod.
fn describe(site: &Site, spec: &PodSpec) -> Result<()> {
    let (namespace, name, cluster) = (&spec.namespace, &spec.name, site.name());
    let inbound = spec.tap.unwrap_or(spec.inbound);
    let text = manifests::pod(cluster, namespace, name, &spec.account, spec.address, Some(inbound));
    site.apply(&format!("{namespace}.{name}.pod"), &text)?;
    for service in &spec.serves {
        let port = spec.app.context("a pod that serves has an application")?;
        let text = manifests::slice(cluster, namespace, service, name, spec.address, port);
        site.apply(&format!("{namespace}.{service}.{name}.slice"), &text)?;
    }
    Ok(())
}
