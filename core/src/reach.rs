//! Whether an import leads anywhere from the cluster that imports it, and what to do where it does not.

use crate::name::ClusterName;
use crate::service::Port;
use crate::view::Import;
use std::collections::BTreeSet;

/// Why an importer reaches none of the ready endpoints of an exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unreached {
    /// They are in another network, and their cluster has no ready gateway there.
    NoGateway,
    /// They serve none of the import's ports.
    NoPort,
    /// Their cluster is withdrawn.
    ClusterWithdrawn,
}

impl Unreached {
    /// The reason in a condition.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Unreached::NoGateway => "NoGateway",
            Unreached::NoPort => "NoPort",
            Unreached::ClusterWithdrawn => "ClusterWithdrawn",
        }
    }

    /// What is wrong with these clusters, and the way out.
    fn sentence(self, clusters: &str, ports: &[Port]) -> String {
        match self {
            Unreached::NoGateway => format!(
                "{clusters}: in another network, and without a ready gateway; give it a gateway with an address that \
                 this cluster reaches, or both clusters one network"
            ),
            Unreached::NoPort => format!(
                "{clusters}: its endpoints serve none of the import's ports ({}); let its Service have one of them, by \
                 name, protocol and number, and its pods the target port",
                ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
            Unreached::ClusterWithdrawn => format!(
                "{clusters}: withdrawn, because nothing is heard of it; its endpoints are back when it is"
            ),
        }
    }
}

/// Why an import leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfReach {
    /// The reasons, joined by commas.
    pub reason: String,
    /// For people: the clusters, why, and the way out.
    pub message: String,
}

/// Why none of the endpoints that are ready for an import is reached from here; `None` while one is, or none is ready.
#[must_use]
pub fn out_of_reach(import: &Import) -> Option<OutOfReach> {
    if !import.candidates.is_empty() || import.unreached.is_empty() {
        return None;
    }
    let whys: BTreeSet<Unreached> = import.unreached.values().copied().collect();
    let clusters = |why: Unreached| {
        let those = import.unreached.iter().filter(|(_, other)| **other == why);
        those.map(|(cluster, _)| ClusterName::as_str(cluster)).collect::<Vec<_>>().join(", ")
    };
    let sentences: Vec<String> =
        whys.iter().map(|why| why.sentence(&clusters(*why), &import.ports)).collect();
    Some(OutOfReach {
        reason: whys.iter().map(|why| why.reason()).collect::<Vec<_>>().join(","),
        message: format!("no ready endpoint is reached from this cluster. {}", sentences.join(". ")),
    })
}

#[cfg(test)]
mod tests;
