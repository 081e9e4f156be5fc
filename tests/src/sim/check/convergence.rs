//! When the faults are over, every replica comes to the same place and every client is served.

use super::{Property, Seen};

/// See the file.
#[derive(Debug)]
pub(super) struct Convergence;

impl Property for Convergence {
    fn name(&self) -> &'static str {
        "convergence"
    }

    fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::End { finals, clients, healed } = seen else { return Ok(()) };
        if finals.len() != 3 {
            return Err(format!("{} of 3 servers run", finals.len()));
        }
        let indices: Vec<u64> = finals.iter().map(|f| f.state.0).collect();
        if indices.iter().any(|index| *index != indices[0]) {
            return Err(format!("the servers came to entries {indices:?}"));
        }
        for (n, client) in clients.iter().enumerate() {
            if let Some(pending) = &client.pending {
                return Err(format!(
                    "client {n} still waits for {:?}, attempt {}",
                    pending.op, pending.attempt
                ));
            }
            if client.finished_since.is_none_or(|since| since < *healed) {
                return Err(format!("client {n} has done nothing since the network healed"));
            }
        }
        Ok(())
    }
}
