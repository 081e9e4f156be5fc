//! The namespaces of an environment: the network between the clusters, and each node's own.

use super::command::{QUICK, run, words};
use super::layout::{HUB, HUB_6, Plan, Topology};
use super::state::Place;
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::path::Path;
use tokio::process::Command;

/// A command in a network namespace, otherwise like any of the machine.
pub(super) fn inside<S: AsRef<OsStr>>(
    network: &Path,
    program: impl AsRef<OsStr>,
    arguments: &[S],
) -> Command {
    let mut command = words("nsenter", &[format!("--net={}", network.display())]);
    command.arg("--").arg(program).args(arguments);
    command
}

/// Makes the network between the clusters: a bridge in a namespace of its own.
pub(super) async fn hub(place: &Place) -> Result<()> {
    make(&place.hub()).await?;
    let script = format!(
        "ip link set lo up\n\
         ip link add lan type bridge\n\
         ip addr add {HUB}/24 dev lan\n\
         ip addr add {HUB_6}/64 dev lan nodad\n\
         ip link set lan up\n"
    );
    sh(&place.hub(), &script).await
}

/// Makes a node's network, with a cable to that between the clusters.
pub(super) async fn node(place: &Place, plan: &Plan) -> Result<()> {
    let network = place.cluster(&plan.name).join("net");
    make(&network).await?;
    let cable = format!(
        "ip link add {name} type veth peer name eth0 netns {network}\n\
         ip link set {name} master lan up\n",
        name = plan.name,
        network = network.display()
    );
    sh(&place.hub(), &cable).await?;
    sh(&network, &own(plan)).await
}

/// Routes between the pods of different clusters, and from where people's tools run, on a flat network.
pub(super) async fn routes(place: &Place, plans: &[Plan]) -> Result<()> {
    for plan in plans.iter().filter(|p| p.topology == Topology::Flat) {
        sh(&place.hub(), &road(plan, true)).await?;
        for from in plans.iter().filter(|p| p.name != plan.name) {
            sh(&place.cluster(&from.name).join("net"), &road(plan, from.dual_stack)).await?;
        }
    }
    Ok(())
}

fn own(plan: &Plan) -> String {
    let mut script = format!(
        "ip link set lo up\n\
         ip addr add {}/24 dev eth0\n\
         ip link set eth0 up\n\
         ip route add default via {HUB}\n",
        plan.node()
    );
    if plan.dual_stack {
        let v6 =
            format!("ip addr add {}/64 dev eth0 nodad\nip route add default via {HUB_6}\n", plan.node_6());
        script.push_str(&v6);
    }
    script
}

/// The way to a cluster's pods, for somebody of one family or both.
fn road(to: &Plan, both: bool) -> String {
    let gateways = [to.node().to_string(), to.node_6().to_string()];
    let families = if both { 2 } else { 1 };
    let ways = to.pods().into_iter().zip(gateways).take(families);
    ways.map(|(pods, node)| format!("ip route add {pods} via {node}\n")).collect()
}

/// A network namespace that lives as long as this file is mounted, whoever is in it.
async fn make(network: &Path) -> Result<()> {
    std::fs::write(network, "").with_context(|| format!("can not make {}", network.display()))?;
    let arguments = [format!("--net={}", network.display()), "true".to_owned()];
    run(&mut words("unshare", &arguments), QUICK).await.map(|_| ())
}

async fn sh(network: &Path, script: &str) -> Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    run(&mut inside(network, "sh", &["-ec", script]), QUICK).await.map(|_| ())
}

/// Unmounts all that is mounted below a folder.
pub(super) async fn unmount(folder: &Path) -> Result<()> {
    let below =
        mounts_below(&std::fs::read_to_string("/proc/self/mountinfo").context("no list of mounts")?, folder);
    for mount in below {
        run(&mut words("umount", &["--lazy", &mount]), QUICK).await?;
    }
    let left =
        mounts_below(&std::fs::read_to_string("/proc/self/mountinfo").context("no list of mounts")?, folder);
    ensure!(left.is_empty(), "can not unmount {}", left.join(" "));
    Ok(())
}

/// The last that was mounted first.
fn mounts_below(mountinfo: &str, folder: &Path) -> Vec<String> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let mut below: Vec<String> =
        points.filter(|p| Path::new(p).starts_with(folder)).map(str::to_owned).collect();
    below.reverse();
    below
}

#[cfg(test)]
mod tests {
    use super::super::layout::plan;
    use super::*;

    #[test]
    fn the_road_to_a_dual_stack_cluster_has_two_lanes_for_who_has_both_families() {
        let plans = plan(2, Topology::Flat, &["east".to_owned()]).unwrap();
        assert_eq!(road(&plans[0], false), "ip route add 10.101.0.0/16 via 10.87.0.11\n");
        assert_eq!(
            road(&plans[0], true),
            "ip route add 10.101.0.0/16 via 10.87.0.11\nip route add fd00:101::/64 via fd00:87::11\n"
        );
        assert_eq!(road(&plans[1], true), "ip route add 10.102.0.0/16 via 10.87.0.12\n");
    }

    #[test]
    fn what_is_mounted_last_is_unmounted_first() {
        let info = "22 1 8:1 / / rw - ext4 /dev/a rw\n\
                    30 22 0:4 net:[1] /var/x/hub.net rw - nsfs nsfs rw\n\
                    31 22 0:4 net:[2] /var/x/east/net rw - nsfs nsfs rw\n\
                    32 22 0:4 / /var/xyz rw - tmpfs tmpfs rw\n";
        assert_eq!(mounts_below(info, Path::new("/var/x")), ["/var/x/east/net", "/var/x/hub.net"]);
    }
}
