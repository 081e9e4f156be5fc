//! Revisions never go back: on a replica while its process lives, and for a reader who asks for what was acknowledged.

use super::{Property, Seen};
use std::collections::BTreeMap;

/// See the file.
#[derive(Debug, Default)]
pub(super) struct RevisionsNeverGoBack {
    states: BTreeMap<u64, u64>,
}

impl Property for RevisionsNeverGoBack {
    fn name(&self) -> &'static str {
        "revisions-never-go-back"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Started { server, index } => {
                self.states.insert(*server, *index);
                Ok(())
            }
            Seen::State { server, index } => match self.states.insert(*server, *index) {
                Some(before) if before > *index => {
                    Err(format!("server {server} went back from revision {before} to {index}"))
                }
                _ => Ok(()),
            },
            Seen::Read { server_state, floor } if server_state < floor => {
                Err(format!("a read gave revision {server_state} after {floor} was acknowledged"))
            }
            _ => Ok(()),
        }
    }
}
