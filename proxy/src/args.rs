//! The command line.

use crate::gate::Cidr;
use crate::listen::explicit::ImportPort;
use clap::{Parser, ValueEnum};
use sealane_core::name::{NameError, Namespace, ServiceKey};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Runs a Sealane proxy: the data plane of one workload (sidecar) or of a cluster's edge (gateway).
#[derive(Debug, Clone, Parser)]
#[command(name = "sealane-proxy", version, after_help = EXAMPLES)]
pub struct Args {
    /// What this proxy is.
    #[arg(long, value_enum)]
    pub(crate) role: Role,
    /// The token that `sealane-agent workload-token` wrote. Needed until --dir holds an identity; used once.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
    /// Where there is no identity yet and no --token-file either, wait for the file instead of giving up.
    #[arg(long)]
    pub(crate) wait_for_token: bool,
    /// Where the identity and the last configuration are kept (made with mode 0700), so that a restart needs no agent.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Dial the agent here instead of where the token says. May be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) agent: Vec<String>,
    /// The pod that this sidecar serves.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(crate) pod: Option<Pod>,
    /// Where peers connect: the sidecar's mTLS port (the pod's annotation sealane.dev/inbound-port), or the gateway's
    /// east-west port.
    #[arg(long, value_name = "ADDR")]
    pub(crate) inbound: SocketAddr,
    /// The address at which peers reach --inbound, where it differs.
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Option<SocketAddr>,
    /// The admin listener: /livez /readyz /metrics, and for clients on loopback /config /connections and POST /drain.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) admin: SocketAddr,
    /// Listen at every import's own address and port.
    #[arg(long)]
    pub(crate) listen_imports: bool,
    /// Listen at ADDR for one port of one import. May be repeated.
    #[arg(long, value_name = "NAMESPACE/NAME:PORT=ADDR")]
    pub(crate) outbound: Vec<Explicit>,
    /// Take connections that the kernel redirects here (SO_ORIGINAL_DST). What is no import passes untouched. The
    /// redirect must leave out the proxy's own: by its user, or by the mark 0x5ea1 that it sets where it may.
    #[arg(long, value_name = "ADDR")]
    pub(crate) capture: Option<SocketAddr>,
    /// Probe other clusters and report to the agent. A gateway always does.
    #[arg(long)]
    pub(crate) probe: bool,
    /// How long open connections may go on after SIGTERM. A second SIGTERM ends them at once.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) drain_timeout: Duration,
    /// Worker threads [default: the number of cores, at most 2].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Connections at --inbound in all.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub(crate) max_connections: usize,
    /// Connections at --inbound of one source address.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) max_connections_per_source: usize,
    /// New connections a second at --inbound of one source address.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub(crate) max_rate_per_source: u32,
    /// Only these source addresses may connect to --inbound. May be repeated; none given = all may.
    #[arg(long, value_name = "CIDR")]
    pub(crate) allow_from: Vec<Cidr>,
    /// Pipes that splicing may use at a time; 0 turns it off.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) max_pipes: usize,
    /// Which events are logged, such as `info` or `sealane_proxy=debug`.
    #[arg(long, value_name = "FILTER", env = "SEALANE_LOG", default_value = "info")]
    pub(crate) log: String,
    /// How they are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

const EXAMPLES: &str = "Examples:
  A sidecar with one import on a local port:
    sealane-proxy --role sidecar --token-file token --dir state --pod shop/cart-0 \\
      --inbound 10.0.0.7:15008 --outbound shop/stock:80=127.0.0.1:8081
  A gateway:
    sealane-proxy --role gateway --token-file token --dir state --inbound 0.0.0.0:15443";

/// What a proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Beside one application.
    Sidecar,
    /// At a cluster's edge.
    Gateway,
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Args {
    /// How many worker threads the runtime should have.
    #[must_use]
    pub fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from).min(2);
        self.workers.map_or_else(cores, usize::from)
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Its namespace.
    pub(crate) namespace: Namespace,
    /// Its name.
    pub(crate) name: String,
}

impl FromStr for Pod {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let bad = |rule| NameError { kind: "pod", input: s.chars().take(80).collect(), rule };
        let (namespace, name) = s.split_once('/').ok_or_else(|| bad("must be written NAMESPACE/NAME"))?;
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(good) {
            return Err(bad("its name must be 1 to 253 of a-z, 0-9, '-' and '.'"));
        }
        Ok(Pod { namespace: Namespace::parse(namespace)?, name: name.to_owned() })
    }
}

/// A listener for one port of one import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explicit {
    /// What for.
    pub(crate) import: ImportPort,
    /// Where.
    pub(crate) listen: SocketAddr,
}

impl FromStr for Explicit {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("{s:?} is not NAMESPACE/NAME:PORT=ADDR, such as shop/cart:80=127.0.0.1:8080");
        let (import, listen) = s.split_once('=').ok_or_else(bad)?;
        let (service, port) = import.split_once(':').ok_or_else(bad)?;
        let service = ServiceKey::parse(service).map_err(|e| e.to_string())?;
        let port: u16 = port.parse().ok().filter(|p| *p > 0).ok_or_else(bad)?;
        Ok(Explicit { import: ImportPort { service, port }, listen: listen.parse().map_err(|_| bad())? })
    }
}

/// Such as `500ms`, `30s` or `5m`.
fn duration(s: &str) -> Result<Duration, String> {
    let bad = || format!("{s:?} is not a duration such as 500ms, 30s or 5m");
    let unit = s.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = s[..s.len() - unit.len()].parse().map_err(|_| bad())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(bad),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn an_explicit_listener_is_read_or_refused() {
        let read: Explicit = "shop/cart:80=[::1]:8080".parse().unwrap();
        let import = ImportPort { service: ServiceKey::parse("shop/cart").unwrap(), port: 80 };
        assert_eq!(read, Explicit { import, listen: "[::1]:8080".parse().unwrap() });
        for bad in [
            "shop/cart:80",
            "shop/cart=127.0.0.1:1",
            "cart:80=127.0.0.1:1",
            "shop/cart:0=127.0.0.1:1",
            "a/b:1=x",
        ] {
            assert!(bad.parse::<Explicit>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "30", "s", "1h", "-1s", "18446744073709551615m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
