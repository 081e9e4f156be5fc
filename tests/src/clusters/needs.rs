//! What an environment needs of the machine, and getting it where that can be done.

use super::command::{run, words};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::time::Duration;

/// How long a package installation may take.
const INSTALLATION: Duration = Duration::from_secs(900);

/// What is looked for, and the Debian package that brings it.
const PROGRAMS: [(&str, &str); 13] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("tini", "tini"),
    ("mmdebstrap", "mmdebstrap"),
    ("ip", "iproute2"),
    ("sysctl", "procps"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];
/// Where Debian's CNI plugins are.
pub(super) const CNI: &str = "/usr/lib/cni";

/// Makes sure that all of it is there.
pub(super) async fn meet(say: &dyn Fn(&str)) -> Result<()> {
    ensure!(cfg!(target_os = "linux"), "clusters need Linux: their nodes are made of its namespaces");
    ensure!(
        rustix::process::geteuid().is_root(),
        "clusters need root, for namespaces and cgroups: run this with sudo"
    );
    install(say).await?;
    bridges(say).await
}

async fn install(say: &dyn Fn(&str)) -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let can = found("apt-get");
    ensure!(can, "these are missing: {list} (names of Debian's packages; install them, then try again)");
    say(&format!("installing {list}"));
    let get = |words_: &[&str]| {
        let mut command = words("apt-get", words_);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(missing.iter().copied());
    if run(&mut get(&arguments), INSTALLATION).await.is_err() {
        // The lists may be missing or old.
        run(&mut get(&["update"]), INSTALLATION).await?;
        run(&mut get(&arguments), INSTALLATION).await?;
    }
    let left = self::missing();
    ensure!(left.is_empty(), "apt-get installed {list}, and yet {} is not there", left.join(" "));
    Ok(())
}

fn missing() -> Vec<&'static str> {
    let mut missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !found(program)).map(|(_, package)| *package).collect();
    if !Path::new(CNI).join("bridge").exists() {
        missing.push("containernetworking-plugins");
    }
    missing.sort_unstable();
    missing.dedup();
    missing
}

fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where root's programs are, though a user's PATH may not name it.
    let more = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(more).any(|folder| folder.join(program).is_file())
}

/// Packets between pods of one node pass a bridge; the kernel shows them to the packet filter only with this.
async fn bridges(say: &dyn Fn(&str)) -> Result<()> {
    let switch = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if !switch.exists() {
        let loaded = run(&mut words("modprobe", &["br_netfilter"]), super::command::QUICK).await;
        loaded.context("this kernel has no br_netfilter, without which Services do not work")?;
    }
    if !switch.exists() {
        bail!("this kernel has no bridge-nf-call-iptables, without which Services do not work");
    }
    let instances = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap_or_default();
    if instances.trim().parse().is_ok_and(|n: u32| n < 128) {
        say("fs.inotify.max_user_instances is below 128: programs may fail with \"too many open files\"");
    }
    Ok(())
}
