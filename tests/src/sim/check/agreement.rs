//! All replicas apply the same commands in the same order, and come to the same state.

use super::{Property, Seen};
use crate::sim::machine::hash_of;
use sealane_federation::consensus::machine::StateMachine;
use std::collections::BTreeMap;

/// See the file.
#[derive(Debug, Default)]
pub(super) struct ReplicasAgree {
    /// What the first replica to come there had: term, digest of the command, hash of the state after it.
    first: BTreeMap<u64, (u64, u64, u64)>,
    /// The last command of each replica's process.
    last: BTreeMap<u64, u64>,
}

impl Property for ReplicasAgree {
    fn name(&self) -> &'static str {
        "replicas-agree"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Started { server, index } => {
                self.last.insert(*server, *index);
                Ok(())
            }
            Seen::Applied { server, noted } => {
                let last = self.last.insert(*server, noted.index).unwrap_or(0);
                if last >= noted.index {
                    return Err(format!("server {server} applied entry {} after entry {last}", noted.index));
                }
                let here = (noted.term, noted.digest, noted.hash);
                let first = *self.first.entry(noted.index).or_insert(here);
                if first == here {
                    return Ok(());
                }
                let what = if (first.0, first.1) == (here.0, here.1) { "state" } else { "command" };
                Err(format!(
                    "server {server} has another {what} at entry {} than the first to apply it",
                    noted.index
                ))
            }
            Seen::End { finals, .. } => {
                let hashes: Vec<(u64, u64)> =
                    finals.iter().map(|f| (f.server, hash_of(f.state.1.records()))).collect();
                match hashes.iter().find(|(_, hash)| *hash != hashes[0].1) {
                    Some((server, _)) => {
                        Err(format!("server {server} ends with another state than server {}", hashes[0].0))
                    }
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
