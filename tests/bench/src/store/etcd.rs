//! An etcd cluster on this machine: real processes, real data directories, in plain text or with TLS on every side.

mod certificates;
mod wire;

use anyhow::{Context, Result};
use certificates::Certificates;
use hyper_util::rt::TokioIo;
use sealane::local::{Lab, Launcher, Process, wait};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
pub(crate) use wire::Putter;

/// How long a cluster may take to have a leader, or a member to come back.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a member may take to say how it is.
const STATUS: Duration = Duration::from_secs(1);
const MEMBERS: u8 = 3;
/// How much of a member's log is told when it does not come up.
const LINES: usize = 5;

/// How a cluster is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Its name, in a word.
    pub(crate) name: &'static str,
    /// What it is called in tables.
    pub(crate) title: &'static str,
    /// Which network of the block it lives in.
    pub(crate) network: u8,
    /// Whether its members and clients use mutual TLS.
    pub(crate) tls: bool,
    /// The heartbeat interval and the least election timeout, in milliseconds; etcd's own are 100 and 1,000.
    pub(crate) timers: Option<(u32, u32)>,
}

#[derive(Debug)]
struct Member {
    address: Ipv4Addr,
    process: Option<Process>,
    status: Channel,
}

/// A cluster of three.
#[derive(Debug)]
pub(crate) struct Etcd {
    setup: Setup,
    launcher: Launcher,
    directory: PathBuf,
    certificates: Option<Certificates>,
    members: Vec<Member>,
}

impl Etcd {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) async fn start(lab: &Lab, binary: &Path, setup: Setup) -> Result<Self> {
        let directory = lab.directory(setup.name)?;
        let launcher = Launcher::new(binary.to_owned(), lab.launcher().logs().to_owned(), "warn");
        let addresses: Vec<Ipv4Addr> = (1..=MEMBERS).map(|host| lab.address(setup.network, host)).collect();
        let certificates = if setup.tls { Some(Certificates::make(&directory, &addresses)?) } else { None };
        let mut etcd = Etcd { setup, launcher, directory, certificates, members: Vec::new() };
        for address in addresses {
            let status = etcd.dial(address)?;
            etcd.members.push(Member { address, process: None, status });
        }
        for at in 0..etcd.members.len() {
            etcd.run(at)?;
        }
        etcd.settled().await?;
        Ok(etcd)
    }

    /// Starts a member that does not run.
    ///
    /// # Errors
    /// When it can not be started.
    pub(crate) fn run(&mut self, at: usize) -> Result<()> {
        let arguments = self.arguments(at);
        let name = format!("{}-{at}", self.setup.name);
        self.members[at].process = Some(self.launcher.start(&name, &arguments)?);
        Ok(())
    }

    fn arguments(&self, at: usize) -> Vec<String> {
        let scheme = if self.setup.tls { "https" } else { "http" };
        let url = |at: usize, port: u16| format!("{scheme}://{}:{port}", self.members[at].address);
        let all: Vec<String> = (0..self.members.len()).map(|n| format!("m{n}={}", url(n, 2380))).collect();
        let mut arguments = vec![
            format!("--name=m{at}"),
            format!("--data-dir={}", self.directory.join(format!("m{at}")).display()),
            format!("--listen-client-urls={}", url(at, 2379)),
            format!("--advertise-client-urls={}", url(at, 2379)),
            format!("--listen-peer-urls={}", url(at, 2380)),
            format!("--initial-advertise-peer-urls={}", url(at, 2380)),
            format!("--initial-cluster={}", all.join(",")),
            format!("--initial-cluster-token={}", self.setup.name),
            "--log-level=warn".to_owned(),
        ];
        if let Some((heartbeat, election)) = self.setup.timers {
            arguments.push(format!("--heartbeat-interval={heartbeat}"));
            arguments.push(format!("--election-timeout={election}"));
        }
        arguments.extend(self.certificates.iter().flat_map(Certificates::options));
        arguments
    }

    fn dial(&self, address: Ipv4Addr) -> Result<Channel> {
        let socket = SocketAddr::from((address, 2379));
        let endpoint = Endpoint::from_shared(format!("http://{socket}"))?.tcp_nodelay(true);
        let tls = self.certificates.as_ref().map(|c| TlsConnector::from(c.client()));
        let Some(tls) = tls else { return Ok(endpoint.connect_lazy()) };
        let tls = Arc::new(tls);
        let connector = tower::service_fn(move |_| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(socket).await?;
                stream.set_nodelay(true)?;
                tls.connect(address.to_string().try_into().map_err(std::io::Error::other)?, stream)
                    .await
                    .map(TokioIo::new)
            }
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    /// What it is called in tables.
    pub(crate) fn title(&self) -> &'static str {
        self.setup.title
    }

    /// A connection of its own to a member.
    ///
    /// # Errors
    /// When the address is malformed.
    pub(crate) fn connect(&self, at: usize) -> Result<Channel> {
        self.dial(self.members[at].address)
    }

    /// SIGKILL to one member.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(process) = self.members[at].process.take() {
            process.kill();
        }
    }

    /// The process ids of those that run.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.members.iter().filter_map(|m| m.process.as_ref().map(Process::id)).collect()
    }

    /// Which of the members run.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|at| self.members[*at].process.is_some()).collect()
    }

    async fn statuses(&self) -> Vec<Option<wire::StatusResponse>> {
        let asked = self.members.iter().map(|m| async {
            let answer = tokio::time::timeout(STATUS, wire::status(&m.status)).await;
            answer.ok().and_then(Result::ok)
        });
        futures::future::join_all(asked).await
    }

    /// The ends of the members' logs.
    fn complaints(&self) -> String {
        let ends = self.members.iter().filter_map(|m| {
            let said = m.process.as_ref()?.said();
            let lines: Vec<&str> = said.lines().collect();
            Some(lines[lines.len().saturating_sub(LINES)..].join("\n"))
        });
        ends.collect::<Vec<_>>().join("\n")
    }

    /// The leader, once every member follows it and has what it has.
    ///
    /// # Errors
    /// When that does not come to pass in time.
    pub(crate) async fn settled(&self) -> Result<usize> {
        let (leader, _) = wait::until("every member of etcd follows", PATIENCE, async || {
            let statuses: Vec<_> = self.statuses().await.into_iter().flatten().collect();
            let near = |i: u64| statuses.iter().all(|s| s.raft_index + 1 >= i);
            let Some(at) = statuses.iter().position(wire::StatusResponse::leads) else { return Ok(None) };
            let leader = statuses[at].leader;
            let all = statuses.len() == self.members.len() && statuses.iter().all(|s| s.leader == leader);
            Ok((all && near(statuses[at].raft_index)).then_some(at))
        })
        .await
        .with_context(|| format!("{} said:\n{}", self.setup.title, self.complaints()))?;
        Ok(leader)
    }
}
