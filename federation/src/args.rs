//! The command line. Defaults and the environment are read here and nowhere else.

use crate::pki::MEMBER_VALIDITY;
use clap::{Parser, Subcommand, ValueEnum};
use sealane_core::name::TrustDomain;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A federation server: one replica of the store that clusters publish their catalogs to.
#[derive(Debug, Parser)]
#[command(name = "sealane-federation", version, about)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What to log: a level, or directives such as `info,sealane_federation=debug`.
    #[arg(long, global = true, env = "SEALANE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// How log lines are written.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new federation whose first server this is.
    ///
    /// Makes the root (keep DIR/pki/root.key safe: it admits further servers), this server's own issuer, and a
    /// context directory with an administrator's certificate that is valid for 90 days.
    #[command(after_help = INIT)]
    Init(InitArgs),
    /// Become a further server of a federation, by a token of `sealane token create --server`.
    #[command(after_help = JOIN)]
    Join(JoinArgs),
    /// Serve.
    #[command(after_help = RUN)]
    Run(RunArgs),
    /// Make a federation of one from the disk of its last surviving server.
    #[command(after_help = RECOVER)]
    Recover(RecoverArgs),
}

const INIT: &str = "\
Example:
  sealane-federation init --dir s1 --address s1.example.org:7443 --status-address s1.example.org:7444 --admin-out admin";

const JOIN: &str = "\
Example:
  sealane token create --server --out s2.token
  sealane-federation join --dir s2 --token-file s2.token --address s2.example.org:7443 --status-address s2.example.org:7444";

const RUN: &str = "\
Examples:
  sealane-federation run --dir s1
  sealane-federation run --dir s1 --listen 0.0.0.0:7443 --status-listen 0.0.0.0:7444 --metrics-listen 127.0.0.1:7445";

const RECOVER: &str = "\
Example:
  sealane-federation recover --dir s1 --force-new-cluster";

/// How others reach a server.
#[derive(Debug, Clone, clap::Args)]
pub struct Addresses {
    /// Where servers, agents and administrators dial this server.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    pub address: String,
    /// Where its status API is reached.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    pub status_address: String,
}

impl Addresses {
    /// Whether both can be served at a time.
    ///
    /// # Errors
    /// When they are the same.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.address != self.status_address,
            "--address and --status-address are both {}: give the status API a port of its own",
            self.address
        );
        Ok(())
    }
}

/// `init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Where the server keeps everything; must be empty or absent.
    #[arg(long)]
    pub dir: PathBuf,
    /// How others reach it.
    #[command(flatten)]
    pub addresses: Addresses,
    /// The trust domain of servers, agents and administrators.
    #[arg(long, default_value = "sealane.local")]
    pub trust_domain: TrustDomain,
    /// Where to put the first administrator's context (certificate, key, roots, addresses).
    #[arg(long, value_name = "CONTEXT-DIR")]
    pub admin_out: PathBuf,
}

/// `join`.
#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// Where the server keeps everything; must be empty or absent.
    #[arg(long)]
    pub dir: PathBuf,
    /// The join token, in a file of mode 0600; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// How others reach it.
    #[command(flatten)]
    pub addresses: Addresses,
}

/// `run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// What `init` or `join` made.
    #[arg(long)]
    pub dir: PathBuf,
    /// Where to listen, if not at the advertised address.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Where to listen for the status API, if not at its advertised address.
    #[arg(long, value_name = "ADDRESS")]
    pub status_listen: Option<SocketAddr>,
    /// Where to serve metrics over plain HTTP; a loopback address. Port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub metrics_listen: SocketAddr,
    /// After how many log entries the next snapshot is due; the log is cut below it. Half as many stay in the log for
    /// servers that were away for a short time.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..))]
    pub snapshot_entries: u64,
    /// The size of the files that the log is made of. One is filled with zeros ahead of its use; what is cut off the
    /// log is given back to the disk by whole files.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u64).range(4096..=1 << 30))]
    pub segment_bytes: u64,
    /// How long the certificates of agents and of this server last: 2s to 7d; renewed at half of it.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = certificate_ttl)]
    pub certificate_ttl: Duration,
    /// An administrator's context beside the server, whose certificate is exchanged before it ends (90d) for as long as the
    /// server runs: for pods, where people work by it with `kubectl exec`.
    #[arg(long, value_name = "CONTEXT-DIR")]
    pub renew_admin: Option<PathBuf>,
}

/// `recover`.
#[derive(Debug, clap::Args)]
pub struct RecoverArgs {
    /// The surviving server's directory. The server must be stopped.
    #[arg(long)]
    pub dir: PathBuf,
    /// Needed, because it forgets every other server: they must never be started again.
    #[arg(long, required = true)]
    pub force_new_cluster: bool,
}

/// A whole number and its unit, within what a certificate of a member may last.
fn certificate_ttl(text: &str) -> Result<Duration, String> {
    let refusal = || format!("{text:?} is not a time: write a whole number and s, m, h or d, as in 12h");
    let unit = text.chars().last().ok_or_else(refusal)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(refusal()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| refusal())?;
    let span = Duration::from_secs(number.checked_mul(seconds).ok_or_else(refusal)?);
    if !(Duration::from_secs(2)..=MEMBER_VALIDITY).contains(&span) {
        return Err("must be from 2s to 7d".to_owned());
    }
    Ok(span)
}

/// An address that others can dial, as text.
///
/// # Errors
/// With what is wrong with it.
pub fn host_port(text: &str) -> Result<String, String> {
    let refusal = || format!("{text:?} is not of the form HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(refusal)?;
    let port: u16 = port.parse().map_err(|_| refusal())?;
    if host.is_empty() || port == 0 || text.len() > 255 {
        return Err(refusal());
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        return Err(format!("{text:?} is no address that others can dial; --listen says where to listen"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_certificate_lasts_for_seconds_to_a_week() {
        assert_eq!(certificate_ttl("7d"), Ok(MEMBER_VALIDITY));
        assert_eq!(certificate_ttl("2s"), Ok(Duration::from_secs(2)));
        for bad in ["", "1s", "8d", "5", "s", "-1s", "99999999999999999999d"] {
            assert!(certificate_ttl(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_needs_a_host_and_a_port() {
        for bad in ["", "host", ":7443", "host:", "host:0", "host:70000"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
        assert!(host_port("0.0.0.0:7443").is_err() && host_port("[::]:7443").is_err());
        let same = Addresses { address: "a:1".into(), status_address: "a:1".into() };
        assert!(same.check().is_err());
        assert_eq!(host_port("[::1]:7443").unwrap(), "[::1]:7443");
    }
}
