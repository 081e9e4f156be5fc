//! A Kubernetes control plane on loopback: etcd and an API server, and the controllers where a test wants them. No
//! node, no pod: it is ready in about three seconds, and gone with the value.
//!
//! ```no_run
//! # async fn f(lab: &sealane::local::Lab) -> anyhow::Result<()> {
//! use sealane_tests::control_plane::{ControlPlane, Shape};
//! let east = ControlPlane::start(lab, Shape::new("east", 1)).await?;
//! east.kubectl(&["create", "namespace", "shop"]).await?;
//! let kubeconfig = east.kubeconfig();   // of an admin, for any client
//! # Ok(()) }
//! ```

mod archive;
mod program;

use crate::kubernetes::kubeconfig::{self, Access};
use crate::kubernetes::pki::{MASTERS, Pki, Subject};
use crate::kubernetes::{arguments, ask};
use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use program::Program;
use sealane::local::Lab;
use sealane::local::wait::until;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

pub use archive::Archive;
pub use sealane::local::Process;

/// The network of a lab whose addresses control planes have.
const NETWORK: u8 = 15;
/// The addresses of its Services; nothing makes them work.
const SERVICES: &str = "10.96.0.0/16";
/// How long a start may take, on a machine that is busy.
const READY: Duration = Duration::from_secs(60);
/// How long one kubectl may take.
const COMMAND: Duration = Duration::from_secs(60);

/// What is started.
#[derive(Debug, Clone)]
pub struct Shape {
    name: String,
    place: u8,
    controllers: bool,
    own_issuer: bool,
    arguments: Vec<String>,
}

impl Shape {
    /// etcd and an API server; its context bears the name, and the places of a lab (1 to 200) are different ones.
    #[must_use]
    pub fn new(name: &str, place: u8) -> Self {
        Shape { name: name.to_owned(), place, controllers: false, own_issuer: false, arguments: Vec::new() }
    }

    /// With the controller manager: namespaces end, owners take what they own with them, ServiceAccounts exist.
    #[must_use]
    pub fn with_controllers(self) -> Self {
        Shape { controllers: true, ..self }
    }

    /// Whose tokens name its own address as their issuer, so that its keys are found there.
    #[must_use]
    pub fn issuing_under_its_address(self) -> Self {
        Shape { own_issuer: true, ..self }
    }

    /// With a further argument of the API server, `--etcd-compaction-interval=1s`.
    #[must_use]
    pub fn with(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }
}

/// A running control plane. Dropping it ends it.
#[derive(Debug)]
pub struct ControlPlane {
    shape: Shape,
    address: IpAddr,
    folder: PathBuf,
    pki: Pki,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    // In this order: whoever asks ends before who is asked.
    controllers: Option<Program>,
    server: Program,
    etcd: Program,
}

impl ControlPlane {
    /// Starts it and waits until it is ready. What is not built yet is built first, which takes minutes once.
    ///
    /// # Errors
    /// When a tool can not be built, or a program does not become ready, with the end of its log.
    pub async fn start(lab: &Lab, shape: Shape) -> Result<Self> {
        let address = IpAddr::V4(lab.address(NETWORK, shape.place));
        let folder = lab.directory(&format!("{}-control-plane", shape.name))?;
        let pki = certificates(&folder.join("pki"), address)?;
        let kubeconfig = folder.join("kubeconfig");
        let server = format!("https://{}", SocketAddr::new(address, arguments::PORT));
        kubeconfig::write(
            &kubeconfig,
            &[Access { name: &shape.name, server, pki: pki.folder(), client: "admin" }],
        )?;
        let logs = lab.launcher().logs();
        let program = |tool: &tools::Tool, binary: PathBuf, words: Vec<String>| {
            Program::new(logs, format!("{}-{}", shape.name, tool.name()), binary, words)
        };
        let mut etcd =
            program(&tools::ETCD, tools::ETCD.ready().await?, arguments::etcd(&folder.join("etcd"), address));
        let words = server_words(&shape, address, pki.folder());
        let mut server = program(&tools::API_SERVER, tools::API_SERVER.ready().await?, words);
        let words = arguments::controllers(pki.folder(), &kubeconfig, address, &[]);
        let controllers = if shape.controllers {
            Some(program(&tools::CONTROLLERS, tools::CONTROLLERS.ready().await?, words))
        } else {
            None
        };
        let kubectl = tools::KUBECTL.ready().await?;
        etcd.start()?;
        server.start()?;
        let mut plane =
            ControlPlane { shape, address, folder, pki, kubeconfig, kubectl, controllers, server, etcd };
        plane.ready().await?;
        if let Some(controllers) = &mut plane.controllers {
            controllers.start()?;
        }
        Ok(plane)
    }

    /// The name of its context.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shape.name
    }

    /// Where the API server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address, arguments::PORT)
    }

    /// The file with the authority by which it is verified.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.pki.folder().join("ca.pem")
    }

    /// The file by which an admin reaches it.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The file by which another user reaches it, who may do what RBAC says of this name and group (empty: none).
    ///
    /// # Errors
    /// When it can not be written.
    pub fn kubeconfig_of(&self, user: &str, group: &str) -> Result<PathBuf> {
        let file: String = user.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        self.pki.issue(&file, Subject { name: user, group, reached: &[] })?;
        let path = self.folder.join(format!("{file}.kubeconfig"));
        let server = format!("https://{}", self.address());
        let access = Access { name: &self.shape.name, server, pki: self.pki.folder(), client: &file };
        kubeconfig::write(&path, &[access])?;
        Ok(path)
    }

    /// What kubectl prints, as an admin.
    ///
    /// # Errors
    /// When it fails, with what it said, or does not end in time.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run(arguments, None).await
    }

    /// Applies manifests: YAML or JSON.
    ///
    /// # Errors
    /// When they are refused.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "--filename=-"];
        self.run(&arguments, Some(manifests)).await.map(|_| ())
    }

    /// The API server's process, to be frozen (SIGSTOP) and continued; none while it is killed.
    #[must_use]
    pub fn server(&self) -> Option<&Process> {
        self.server.process()
    }

    /// SIGKILL for the API server. What etcd holds stays.
    pub fn kill_server(&mut self) {
        self.server.kill();
    }

    /// Starts the API server again after [`ControlPlane::kill_server`], and waits until it is ready.
    ///
    /// The controllers start anew: those that lost their API server may have ended, or ask again half a minute later.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn restart_server(&mut self) -> Result<()> {
        ensure!(self.server.process().is_none(), "the API server runs");
        self.server.start()?;
        self.ready().await?;
        if let Some(controllers) = &mut self.controllers {
            controllers.kill();
            controllers.start()?;
        }
        Ok(())
    }

    async fn ready(&mut self) -> Result<()> {
        let (address, authority) = (self.address(), self.authority());
        let what = format!("the API server of {} is ready", self.shape.name);
        let (server, etcd) = (&mut self.server, &mut self.etcd);
        let looked = until(&what, READY, async || {
            if let Some(end) = etcd.end().or_else(|| server.end()) {
                // No reason to go on waiting.
                return Ok(Some(Err(end)));
            }
            ask::ready(address, &authority).await.map(|()| Some(Ok(())))
        });
        match looked.await.with_context(|| format!("{}\n{}", etcd.tail(), server.tail()))?.0 {
            Ok(()) => Ok(()),
            Err(end) => bail!(end),
        }
    }

    async fn run(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments).kill_on_drop(true);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("kubectl")?;
        let standard_input = child.stdin.take();
        let exchange = async {
            if let (Some(mut pipe), Some(input)) = (standard_input, input) {
                tokio::io::AsyncWriteExt::write_all(&mut pipe, input.as_bytes()).await?;
            }
            child.wait_with_output().await
        };
        let said = arguments.join(" ");
        let output = tokio::time::timeout(COMMAND, exchange)
            .await
            .with_context(|| format!("`kubectl {said}` did not end within {COMMAND:?}"))??;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`kubectl {said}` failed: {}", stderr.trim());
        String::from_utf8(output.stdout).with_context(|| format!("`kubectl {said}` did not print text"))
    }
}

fn certificates(folder: &Path, address: IpAddr) -> Result<Pki> {
    let pki = Pki::create(folder)?;
    let reached = ["kubernetes.default.svc", "localhost", &address.to_string()].map(str::to_owned);
    pki.issue("apiserver", Subject { name: "kube-apiserver", group: "", reached: &reached })?;
    pki.issue("admin", Subject { name: "admin", group: MASTERS, reached: &[] })?;
    pki.issue("front-proxy", Subject { name: "front-proxy-client", group: "", reached: &[] })?;
    Ok(pki)
}

fn server_words(shape: &Shape, address: IpAddr, pki: &Path) -> Vec<String> {
    // Nobody reaches the Service `kubernetes` on loopback, and an endpoint with such an address is refused.
    let mut more = vec!["--endpoint-reconciler-type=none".to_owned()];
    if !shape.controllers {
        // Nobody makes the ServiceAccount `default`, which this plugin wants of every pod.
        more.push("--disable-admission-plugins=ServiceAccount".to_owned());
    }
    more.extend_from_slice(&shape.arguments);
    let issuer = format!("https://{}", SocketAddr::new(address, arguments::PORT));
    let server = arguments::ApiServer {
        issuer: if shape.own_issuer { &issuer } else { arguments::ISSUER },
        bind: address,
        advertise: address,
        etcd: address,
        pki,
        services: SERVICES,
        more: &more,
    };
    server.words()
}
