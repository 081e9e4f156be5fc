//! A network namespace of the run's own, where nobody else's traffic is and where one congestion control holds for
//! every socket, those of the proxies too.

use anyhow::{Context, Result, anyhow};
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Set for the process that is inside.
const INSIDE: &str = "SEALANE_BENCH_NAMESPACE";

/// What is done inside before the benchmark itself. Reno, because every kernel lets everybody choose it, and because
/// an algorithm that paces (BBR) would measure its own pauses.
const SCRIPT: &str = "ip link set lo up \
    && echo reno > /proc/sys/net/ipv4/tcp_congestion_control \
    && echo '10000 65535' > /proc/sys/net/ipv4/ip_local_port_range \
    && exec \"$@\"";

/// Whether this process is inside.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Becomes this program again, with the same arguments, inside.
///
/// # Errors
/// Always, when it returns: the namespace can not be had.
pub(crate) fn enter() -> Result<Infallible> {
    let namespace = |inside: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", SCRIPT, "sh"]).args(inside);
        command
    };
    let tried = namespace(&["true"]).stdin(Stdio::null()).stdout(Stdio::null()).output();
    let tried = tried.context("can not run unshare")?;
    if !tried.status.success() {
        return Err(anyhow!("{}", String::from_utf8_lossy(&tried.stderr).trim()));
    }
    let own = std::env::current_exe().context("no path of the benchmark itself")?;
    let mut command = namespace(&[]);
    Err(command.arg(own).args(std::env::args_os().skip(1)).env(INSIDE, "1").exec().into())
}

/// The congestion control of the sockets of this process and of those that it starts.
pub(crate) fn congestion_control() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}
