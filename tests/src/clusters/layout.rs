//! Names and addresses of an environment: all that is decided before anything is started.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many clusters one machine is asked for at most.
pub const MOST: usize = 8;
const NAMES: [&str; MOST] = ["east", "west", "north", "south", "up", "down", "left", "right"];

/// How the clusters' networks lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// Pods of different clusters have different addresses and reach each other.
    Flat,
    /// Every cluster has the same pod addresses; between clusters only nodes reach each other.
    Networks,
}

/// One cluster of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The name of the cluster, of its node and of its context.
    pub name: String,
    /// From 1: the last part of its addresses.
    pub number: u8,
    /// Whether it also has IPv6.
    pub dual_stack: bool,
    /// How it lies to the others.
    pub topology: Topology,
}

/// The clusters of an environment, by their number.
///
/// # Errors
/// When there are too many, or one that is to be dual-stack is not among them.
pub fn plan(count: usize, topology: Topology, dual_stack: &[String]) -> Result<Vec<Plan>, String> {
    if !(1..=MOST).contains(&count) {
        return Err(format!("from 1 to {MOST} clusters, not {count}"));
    }
    if let Some(stranger) = dual_stack.iter().find(|name| !NAMES[..count].contains(&name.as_str())) {
        return Err(format!("there is no cluster {stranger}; there are {}", NAMES[..count].join(", ")));
    }
    let plan = |(name, number): (&&str, u8)| Plan {
        name: (*name).to_owned(),
        number,
        dual_stack: dual_stack.iter().any(|d| d == name),
        topology,
    };
    Ok(NAMES[..count].iter().zip(1..).map(plan).collect())
}

/// The network between the clusters, in its own namespace, where people's tools run too.
pub const HUB: Ipv4Addr = Ipv4Addr::new(10, 87, 0, 1);
/// The same, of the other family.
pub const HUB_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x87, 0, 0, 0, 0, 0, 1);

impl Plan {
    /// The node's address on the network between the clusters.
    #[must_use]
    pub fn node(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 87, 0, 10 + self.number)
    }

    /// The same, of the other family.
    #[must_use]
    pub fn node_6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x87, 0, 0, 0, 0, 0, 0x10 + u16::from(self.number))
    }

    /// The node's addresses, with a comma between them.
    #[must_use]
    pub fn nodes(&self) -> String {
        self.families(self.node().to_string(), self.node_6().to_string()).join(",")
    }

    /// The pods' ranges: one, or one a family.
    #[must_use]
    pub fn pods(&self) -> Vec<String> {
        let part = self.part();
        self.families(format!("10.{}.0.0/16", 100 + part), format!("fd00:{}::/64", 100 + part))
    }

    /// The Services' ranges: one, or one a family.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        let part = self.part();
        self.families(format!("10.{}.0.0/16", 120 + part), format!("fd00:{}::/112", 120 + part))
    }

    /// The address of the Service `kubernetes`: the first of its range.
    #[must_use]
    pub fn api_service(&self) -> IpAddr {
        Ipv4Addr::new(10, 120 + self.part(), 0, 1).into()
    }

    /// The address of the DNS Service.
    #[must_use]
    pub fn dns(&self) -> IpAddr {
        Ipv4Addr::new(10, 120 + self.part(), 0, 10).into()
    }

    /// Where its API server is.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://{}:{}", self.node(), crate::kubernetes::arguments::PORT)
    }

    fn families(&self, v4: String, v6: String) -> Vec<String> {
        if self.dual_stack { vec![v4, v6] } else { vec![v4] }
    }

    fn part(&self) -> u8 {
        match self.topology {
            Topology::Flat => self.number,
            Topology::Networks => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_flat_network_no_address_is_used_twice() {
        let plans = plan(2, Topology::Flat, &["east".to_owned()]).unwrap();
        let [east, west] = &plans[..] else { panic!("{plans:?}") };
        assert_eq!((east.nodes(), west.nodes()), ("10.87.0.11,fd00:87::11".into(), "10.87.0.12".into()));
        assert_eq!(east.pods(), ["10.101.0.0/16", "fd00:101::/64"]);
        assert_eq!(west.pods(), ["10.102.0.0/16"]);
        assert_eq!(east.services(), ["10.121.0.0/16", "fd00:121::/112"]);
        assert_eq!(
            (west.api_service().to_string(), west.dns().to_string()),
            ("10.122.0.1".into(), "10.122.0.10".into())
        );
    }

    #[test]
    fn different_networks_have_the_same_addresses() {
        let plans = plan(2, Topology::Networks, &[]).unwrap();
        assert_eq!(plans[0].pods(), plans[1].pods());
        assert_eq!(plans[0].services(), plans[1].services());
        assert_ne!(plans[0].node(), plans[1].node());
    }

    #[test]
    fn who_is_not_there_can_not_be_dual_stack() {
        let error = plan(2, Topology::Flat, &["north".to_owned()]).unwrap_err();
        assert_eq!(error, "there is no cluster north; there are east, west");
        assert_eq!(plan(9, Topology::Flat, &[]).unwrap_err(), "from 1 to 8 clusters, not 9");
    }
}
