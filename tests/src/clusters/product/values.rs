//! What the charts are told: a plan in, values out.

use super::super::layout::{Plan, Topology};
use serde_json::{Value, json};

/// The ports of the first server at its node, gRPC and status; those of the next are ten further.
const GRPC: u16 = 30_443;
const STATUS: u16 = 30_444;

/// Of the federation in a cluster, for clusters elsewhere to dial.
pub(super) fn federation(plan: &Plan, servers: u8) -> Value {
    let node = plan.node();
    let servers: Vec<u16> = (0..servers.into()).collect();
    let addresses = servers.iter().map(|n| {
        json!({"grpc": format!("{node}:{}", GRPC + 10 * n), "status": format!("{node}:{}", STATUS + 10 * n)})
    });
    let ports = servers.iter().map(|n| json!({"grpc": GRPC + 10 * n, "status": STATUS + 10 * n}));
    json!({
        "servers": {
            "replicas": servers.len(),
            "addresses": addresses.collect::<Vec<_>>(),
            "listenAddress": listen(plan),
        },
        "external": {"enabled": true, "type": "NodePort", "nodePorts": ports.collect::<Vec<_>>()},
    })
}

/// Of an agent.
pub(super) fn cluster(plan: &Plan) -> Value {
    let network = match plan.topology {
        Topology::Flat => "flat",
        Topology::Networks => "",
    };
    json!({"cluster": {"network": network}, "agent": {"listenAddress": listen(plan)}})
}

/// Services of a dual-stack cluster have an address of each family, and so have what they lead to.
fn listen(plan: &Plan) -> &'static str {
    if plan.dual_stack { "[::]" } else { "0.0.0.0" }
}

#[cfg(test)]
mod tests {
    use super::super::super::layout::plan;
    use super::*;

    #[test]
    fn every_server_has_ports_of_its_own_at_the_node() {
        let plans = plan(2, Topology::Flat, &["east".to_owned()]).unwrap();
        assert_eq!(
            federation(&plans[1], 3),
            json!({
                "servers": {
                    "replicas": 3,
                    "addresses": [
                        {"grpc": "10.87.0.12:30443", "status": "10.87.0.12:30444"},
                        {"grpc": "10.87.0.12:30453", "status": "10.87.0.12:30454"},
                        {"grpc": "10.87.0.12:30463", "status": "10.87.0.12:30464"},
                    ],
                    "listenAddress": "0.0.0.0",
                },
                "external": {
                    "enabled": true,
                    "type": "NodePort",
                    "nodePorts": [
                        {"grpc": 30443, "status": 30444},
                        {"grpc": 30453, "status": 30454},
                        {"grpc": 30463, "status": 30464},
                    ],
                },
            })
        );
        assert_eq!(
            cluster(&plans[0]),
            json!({"cluster": {"network": "flat"}, "agent": {"listenAddress": "[::]"}})
        );
    }
}
