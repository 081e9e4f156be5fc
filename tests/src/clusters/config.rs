//! The configuration files of a node: values in, text out.

use super::layout::{Plan, Topology};
use super::needs::CNI;
use serde_json::{Value, json};
use std::path::Path;

/// Where a node's containerd listens, seen from inside.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";

/// containerd's.
pub(super) fn containerd(state: &Path, snapshotter: &str, pause: &str) -> String {
    let state = state.display();
    format!(
        r#"version = 2
root = "{state}/containerd"
state = "/run/containerd"
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Without it a root without CAP_SYS_RESOURCE can not start a container.
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI}"
conf_dir = "{state}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#
    )
}

/// The pods' network.
pub(super) fn network(plan: &Plan) -> Value {
    let ranges: Vec<Value> = plan.pods().iter().map(|range| json!([{"subnet": range}])).collect();
    let defaults = ["0.0.0.0/0", "::/0"].iter().take(ranges.len());
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                // Where another cluster's pods have the same addresses, a pod leaves its cluster as its node.
                "ipMasq": plan.topology == Topology::Networks,
                "ipam": {
                    "type": "host-local",
                    "ranges": ranges,
                    "routes": defaults.map(|dst| json!({"dst": dst})).collect::<Vec<_>>(),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// kubelet's.
pub(super) fn kubelet(state: &Path, plan: &Plan, group: &str) -> Value {
    let pki = |file: &str| state.join("pki").join(file);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki("ca.pem")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki("kubelet.pem"),
        "tlsPrivateKeyFile": pki("kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": group,
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDNS": [plan.dns()],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "volumePluginDir": state.join("plugins"),
        "serializeImagePulls": false,
        "maxPods": 200,
        // The machine is shared: its memory and its disk are not this node's to look after.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    })
}

/// kube-proxy's.
pub(super) fn proxy(state: &Path, plan: &Plan) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": state.join("kube-proxy.kubeconfig")},
        "hostnameOverride": plan.name,
        "clusterCIDR": plan.pods().join(","),
        // The machine's, not a namespace's to change.
        "conntrack": {
            "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::layout::plan;
    use super::*;

    #[test]
    fn a_dual_stack_node_gives_pods_an_address_and_a_way_out_of_each_family() {
        let plans = plan(2, Topology::Flat, &["east".to_owned()]).unwrap();
        let bridge = &network(&plans[0])["plugins"][0];
        assert_eq!(
            bridge["ipam"],
            json!({
                "type": "host-local",
                "ranges": [[{"subnet": "10.101.0.0/16"}], [{"subnet": "fd00:101::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            })
        );
        assert_eq!(bridge["ipMasq"], false);
        assert_eq!(proxy(Path::new("/s"), &plans[0])["clusterCIDR"], "10.101.0.0/16,fd00:101::/64");
    }

    #[test]
    fn where_addresses_overlap_a_pod_leaves_as_its_node() {
        let plans = plan(1, Topology::Networks, &[]).unwrap();
        assert_eq!(network(&plans[0])["plugins"][0]["ipMasq"], true);
    }
}
