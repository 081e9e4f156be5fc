//! The ports that a client's questions came from, and when each was used last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long a node leads what comes from a port to whom it led it before: `nf_conntrack_udp_timeout_stream`, which is
/// the longest.
const TRACKED: Duration = Duration::from_secs(120);

/// Ports of this client.
#[derive(Debug, Clone, Default)]
pub struct Ports(Arc<Mutex<HashMap<u16, Instant>>>);

impl Ports {
    /// A port is used now. How long ago it was used before, where a node may still know of that.
    pub(super) fn used(&self, port: u16) -> Option<Duration> {
        let now = Instant::now();
        // There are as many as there are ports: that is the bound.
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(port, now);
        before.map(|then| now.duration_since(then)).filter(|ago| *ago <= TRACKED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_known_once_it_was_used() {
        let ports = Ports::default();
        assert_eq!(ports.used(1), None);
        assert_eq!(ports.clone().used(2), None);
        assert!(ports.used(1).is_some_and(|ago| ago < TRACKED));
    }
}
