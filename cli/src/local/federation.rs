//! Federation servers on this machine.

use super::lab::Lab;
use super::process::{Launcher, Process};
use super::wait;
use crate::client::StatusClient;
use crate::context::Context as AdminContext;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The network of the block that the servers live in.
const NETWORK: u8 = 0;

/// One server: where it listens, where its disk is, and its process while it runs.
#[derive(Debug)]
pub struct Server {
    /// Its place in the order of joining, from 1.
    pub number: u8,
    /// What it is called in logs.
    pub name: String,
    /// Where it serves peers, agents and administrators.
    pub grpc: SocketAddr,
    /// Where it serves its status.
    pub status: SocketAddr,
    /// Where it serves its metrics.
    pub metrics: SocketAddr,
    /// Its disk.
    pub directory: PathBuf,
    /// Its process.
    pub process: Option<Process>,
}

/// The servers of a federation, and the context of its administrator.
#[derive(Debug)]
pub struct Federation {
    lab: Lab,
    /// The servers, in the order in which they joined.
    pub servers: Vec<Server>,
    /// The administrator's context directory.
    pub context: PathBuf,
    /// Environment variables of the servers and of the commands that make them.
    pub environment: Vec<(String, String)>,
    options: Vec<String>,
}

impl Federation {
    /// Makes a federation of one server that does not run yet, but will with some options of `sealane federation run`.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn init(lab: &Lab, options: &[&str], environment: Vec<(String, String)>) -> Result<Self> {
        let context = lab.path().join("admin");
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        let mut federation =
            Federation { lab: lab.clone(), servers: Vec::new(), context, environment, options };
        let server = federation.next_server();
        let mut arguments = words(&["federation", "init"]);
        arguments.extend(server.placement());
        arguments.extend([OsString::from("--admin-out"), federation.context.clone().into()]);
        federation.launcher().run(&arguments).await?;
        federation.servers.push(server);
        Ok(federation)
    }

    /// Founds a federation of one server, and runs it with some options of `sealane federation run`.
    ///
    /// # Errors
    /// When any of the commands fails.
    pub async fn found(lab: &Lab, options: &[&str]) -> Result<Self> {
        let mut federation = Self::init(lab, options, Vec::new()).await?;
        federation.start(0).await?;
        federation.leader().await?;
        Ok(federation)
    }

    fn launcher(&self) -> Launcher {
        self.lab.launcher().with(&self.environment)
    }

    /// Founds one and joins servers until there are `count`.
    ///
    /// # Errors
    /// When any of the commands fails.
    pub async fn of(lab: &Lab, count: usize) -> Result<Self> {
        Self::with_options(lab, count, &[]).await
    }

    /// The same, each server run with some options of `sealane federation run`.
    ///
    /// # Errors
    /// When any of the commands fails.
    pub async fn with_options(lab: &Lab, count: usize, options: &[&str]) -> Result<Self> {
        let mut federation = Self::found(lab, options).await?;
        while federation.servers.len() < count {
            federation.join().await?;
        }
        federation.voting(count).await?;
        Ok(federation)
    }

    /// Adds a server by a token, and runs it.
    ///
    /// # Errors
    /// When any of the commands fails.
    pub async fn join(&mut self) -> Result<usize> {
        let at = self.admit().await?;
        self.start(at).await?;
        Ok(at)
    }

    /// Adds a server by a token; it does not run yet.
    ///
    /// # Errors
    /// When any of the commands fails.
    pub async fn admit(&mut self) -> Result<usize> {
        let server = self.next_server();
        let token = self.lab.path().join(format!("{}.token", server.name));
        self.sealane(&["token", "create", "--server", "--out", &token.to_string_lossy()]).await?;
        let mut arguments = words(&["federation", "join"]);
        arguments.extend(server.placement());
        arguments.extend([OsString::from("--token-file"), token.into()]);
        self.launcher().run(&arguments).await?;
        self.servers.push(server);
        Ok(self.servers.len() - 1)
    }

    /// Waits until that many servers vote.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn voting(&self, count: usize) -> Result<()> {
        wait::until_true("every server votes", Duration::from_secs(20), async || {
            let servers = self.client()?.servers().await?;
            Ok(servers.servers.iter().filter(|s| s.voter).count() == count)
        })
        .await?;
        // Learns the addresses of the new servers.
        self.sealane(&["status"]).await?;
        Ok(())
    }

    /// The id of one of the servers.
    ///
    /// # Errors
    /// When the federation does not know it.
    pub async fn id_of(&self, at: usize) -> Result<u64> {
        let address = self.servers[at].grpc.to_string();
        let servers = self.client()?.servers().await?.servers;
        let found = servers.iter().find(|s| s.address.as_deref() == Some(&address));
        found.map(|s| s.id).with_context(|| format!("no server has the address {address}"))
    }

    fn next_server(&self) -> Server {
        // Counted on, also when one has left.
        let number = self.servers.iter().map(|s| s.number).max().unwrap_or(0).saturating_add(1);
        let name = format!("server-{number}");
        Server {
            grpc: self.lab.socket(NETWORK, number, 7443),
            status: self.lab.socket(NETWORK, number, 7444),
            metrics: self.lab.socket(NETWORK, number, 7445),
            directory: self.lab.path().join(&name),
            name,
            number,
            process: None,
        }
    }

    /// Runs a server that does not run, until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(&mut self, at: usize) -> Result<()> {
        let launcher = self.launcher();
        let server = &mut self.servers[at];
        let mut arguments = words(&["federation", "run", "--dir"]);
        arguments.push(server.directory.clone().into());
        arguments.extend([OsString::from("--metrics-listen"), server.metrics.to_string().into()]);
        arguments.extend(self.options.iter().map(OsString::from));
        let process = server.process.insert(launcher.start(&server.name, &arguments)?);
        process.ready().await
    }

    /// SIGKILL to one server.
    pub fn kill(&mut self, at: usize) {
        if let Some(process) = self.servers[at].process.take() {
            process.kill();
        }
    }

    /// SIGKILL to every server.
    pub fn kill_all(&mut self) {
        for at in 0..self.servers.len() {
            self.kill(at);
        }
    }

    /// Runs every server that does not run.
    ///
    /// # Errors
    /// When one does not become ready.
    pub async fn start_all(&mut self) -> Result<()> {
        for at in 0..self.servers.len() {
            if self.servers[at].process.is_none() {
                self.start(at).await?;
            }
        }
        Ok(())
    }

    /// The place in [`Federation::servers`] of the leader, once there is one.
    ///
    /// # Errors
    /// When no leader is known in time.
    pub async fn leader(&self) -> Result<usize> {
        let (leader, _) = wait::until("the servers have a leader", Duration::from_secs(15), async || {
            let servers = self.client()?.servers().await?;
            let leader = servers.servers.iter().find(|s| Some(s.id) == servers.freshness.leader);
            let address = leader.and_then(|l| l.address.clone());
            Ok(address.and_then(|a| {
                self.servers.iter().position(|s| s.process.is_some() && s.grpc.to_string() == a)
            }))
        })
        .await?;
        Ok(leader)
    }

    /// A client of the status API of every server.
    ///
    /// # Errors
    /// When the context can not be read.
    pub fn client(&self) -> Result<StatusClient> {
        let mut context = AdminContext::load(&self.context)?;
        // Asked first is whoever runs, so that a killed server costs no time.
        let running: Vec<String> =
            self.servers.iter().filter(|s| s.process.is_some()).map(|s| s.grpc.to_string()).collect();
        context.prefer(&running);
        StatusClient::new(context)
    }

    /// A client of one server alone.
    ///
    /// # Errors
    /// When the context does not know the server.
    pub fn client_of(&self, at: usize) -> Result<StatusClient> {
        self.client()?.only(&self.servers[at].grpc.to_string())
    }

    /// Runs `sealane` as the administrator, and gives what it printed.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn sealane(&self, arguments: &[&str]) -> Result<String> {
        let mut all = words(&["--context"]);
        all.push(self.context.clone().into());
        all.extend(words(arguments));
        self.lab.launcher().run(&all).await.context("as the administrator")
    }
}

impl Server {
    fn placement(&self) -> Vec<OsString> {
        let mut arguments = words(&["--dir"]);
        arguments.push(self.directory.clone().into());
        arguments.extend(words(&[
            "--address",
            &self.grpc.to_string(),
            "--status-address",
            &self.status.to_string(),
        ]));
        arguments
    }
}

/// Arguments, as a command takes them.
pub(crate) fn words(text: &[&str]) -> Vec<OsString> {
    text.iter().map(OsString::from).collect()
}
