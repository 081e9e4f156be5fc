//! The union of ports, and which of them an exporter really has.

use crate::name::PortName;
use crate::service::Port;
use std::collections::BTreeSet;

/// The union of port lists, oldest list first: merged first by name, then by (protocol, port). The younger of two
/// that collide is dropped; so is a younger one beside an unnamed port, which can only stand alone.
pub(super) fn union<'a>(lists: impl Iterator<Item = &'a [Port]>) -> Vec<Port> {
    let mut names = BTreeSet::new();
    let by_name: Vec<&Port> = lists.flatten().filter(|port| names.insert(&port.name)).collect();
    let mut numbers = BTreeSet::new();
    let mut ports: Vec<Port> = Vec::new();
    for port in by_name {
        let alone = port.name.as_str().is_empty() || ports.iter().any(|first| first.name.as_str().is_empty());
        if (!alone || ports.is_empty()) && numbers.insert((port.protocol, port.port)) {
            ports.push(port.clone());
        }
    }
    ports
}

/// The names of the merged ports that an exporter itself exposes in the same meaning.
pub(super) fn exposed(merged: &[Port], own: &[Port]) -> BTreeSet<PortName> {
    let same = |a: &Port, b: &Port| a.name == b.name && a.protocol == b.protocol && a.port == b.port;
    merged
        .iter()
        .filter(|port| own.iter().any(|mine| same(port, mine)))
        .map(|port| port.name.clone())
        .collect()
}
