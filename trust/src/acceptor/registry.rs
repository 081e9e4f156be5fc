//! Who holds a connection, and who must give one up.

use super::Limits;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// How far a connection has come, and so how it is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Handshake,
    Anonymous,
    Verified,
}

/// The bound that a connection met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Connections,
    Source,
}

#[derive(Debug, Clone)]
pub(super) struct Registry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    entries: Mutex<Entries>,
}

#[derive(Debug)]
struct Bounds {
    connections: usize,
    anonymous: usize,
    per_source: usize,
    handshakes: usize,
}

#[derive(Debug, Default)]
struct Entries {
    /// In order of age.
    by_id: BTreeMap<u64, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    source: IpAddr,
    phase: Phase,
    evicted: CancellationToken,
}

/// A connection's place; leaving it is dropping this.
#[derive(Debug)]
pub(super) struct Slot {
    registry: Registry,
    id: u64,
    evicted: CancellationToken,
}

impl Registry {
    pub(super) fn new(limits: &Limits) -> Self {
        let bounds = Bounds {
            connections: limits.connections,
            anonymous: limits.anonymous,
            per_source: limits.per_source,
            handshakes: limits.handshakes,
        };
        Registry(Arc::new(Shared { bounds, entries: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Nothing panics while it is held; and a map of open connections is never half changed.
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection begins its handshake; when there are too many, another one gives way.
    pub(super) fn enter(&self, address: IpAddr) -> Slot {
        let source = source(address);
        let mut entries = self.lock();
        if entries.count(Phase::Handshake) >= self.0.bounds.handshakes {
            entries.evict(Phase::Handshake, None);
        }
        let evicted = CancellationToken::new();
        let id = entries.next;
        entries.next += 1;
        entries.by_id.insert(id, Entry { source, phase: Phase::Handshake, evicted: evicted.clone() });
        Slot { registry: self.clone(), id, evicted }
    }
}

impl Slot {
    /// The handshake is done: take a place among the open connections.
    pub(super) fn promote(&self, phase: Phase) -> Result<(), Full> {
        let bounds = &self.registry.0.bounds;
        let mut entries = self.registry.lock();
        let Some(source) = entries.by_id.get(&self.id).map(|e| e.source) else {
            return Err(Full::Connections);
        };
        if entries.open_of(source) >= bounds.per_source {
            let made_room = phase == Phase::Anonymous && entries.evict(Phase::Anonymous, Some(source));
            if !made_room {
                return Err(Full::Source);
            }
        }
        match phase {
            Phase::Anonymous if entries.count(phase) >= bounds.anonymous => {
                if !entries.evict(phase, None) {
                    return Err(Full::Connections);
                }
            }
            Phase::Verified if entries.count(phase) >= bounds.connections => return Err(Full::Connections),
            _ => {}
        }
        match entries.by_id.get_mut(&self.id) {
            Some(entry) => entry.phase = phase,
            None => return Err(Full::Connections),
        }
        Ok(())
    }

    /// Returns when this connection has to give way.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.registry.lock().by_id.remove(&self.id);
    }
}

impl Entries {
    fn count(&self, phase: Phase) -> usize {
        self.by_id.values().filter(|e| e.phase == phase).count()
    }

    fn open_of(&self, source: IpAddr) -> usize {
        self.by_id.values().filter(|e| e.phase != Phase::Handshake && e.source == source).count()
    }

    /// Drops the oldest connection in this phase of the given source, or of the one that holds the most.
    fn evict(&mut self, phase: Phase, source: Option<IpAddr>) -> bool {
        let Some(source) = source.or_else(|| self.greediest(phase)) else { return false };
        let oldest =
            self.by_id.iter().find(|(_, e)| e.phase == phase && e.source == source).map(|(id, _)| *id);
        let Some(entry) = oldest.and_then(|id| self.by_id.remove(&id)) else { return false };
        entry.evicted.cancel();
        true
    }

    fn greediest(&self, phase: Phase) -> Option<IpAddr> {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for entry in self.by_id.values().filter(|e| e.phase == phase) {
            *counts.entry(entry.source).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(source, _)| source)
    }
}

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(handshakes: usize, anonymous: usize, connections: usize, per_source: usize) -> Registry {
        Registry::new(&Limits { handshakes, anonymous, connections, per_source, ..Limits::default() })
    }

    fn is_evicted(slot: &Slot) -> bool {
        slot.evicted.is_cancelled()
    }

    #[test]
    fn a_flood_evicts_itself_and_not_a_lone_client() {
        let registry = registry(4, 8, 8, 8);
        let lone = registry.enter("10.0.0.1".parse().unwrap());
        let flood: Vec<Slot> = (0..20).map(|_| registry.enter("10.0.0.2".parse().unwrap())).collect();
        assert!(!is_evicted(&lone));
        assert_eq!(flood.iter().filter(|s| !is_evicted(s)).count(), 3);
        assert!(flood[17..].iter().all(|s| !is_evicted(s)), "the newest stay");
        assert_eq!(lone.promote(Phase::Verified), Ok(()));
        assert_eq!(flood[0].promote(Phase::Verified), Err(Full::Connections), "an evicted one has no place");
    }

    #[test]
    fn verified_connections_are_refused_and_never_evicted() {
        let registry = registry(8, 8, 2, 8);
        let slots: Vec<Slot> = (0..3).map(|_| registry.enter("10.0.0.1".parse().unwrap())).collect();
        let results: Vec<_> = slots.iter().map(|s| s.promote(Phase::Verified)).collect();
        assert_eq!(results, [Ok(()), Ok(()), Err(Full::Connections)]);
        assert!(!slots.iter().any(is_evicted));
    }

    #[test]
    fn anonymous_connections_give_way_to_newer_ones() {
        let registry = registry(8, 2, 8, 8);
        let slots: Vec<Slot> = (0..3).map(|_| registry.enter("10.0.0.1".parse().unwrap())).collect();
        assert!(slots.iter().all(|s| s.promote(Phase::Anonymous).is_ok()));
        assert_eq!(slots.iter().map(is_evicted).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn one_source_has_its_own_bound_and_a_64_is_one_source() {
        let registry = registry(8, 8, 8, 1);
        let first = registry.enter("2001:db8::1".parse().unwrap());
        let same = registry.enter("2001:db8::ffff:1".parse().unwrap());
        let other = registry.enter("2001:db8:0:1::1".parse().unwrap());
        assert_eq!(first.promote(Phase::Verified), Ok(()));
        assert_eq!(same.promote(Phase::Verified), Err(Full::Source));
        assert_eq!(other.promote(Phase::Verified), Ok(()));
        drop(first);
        assert_eq!(same.promote(Phase::Verified), Ok(()));
    }

    #[test]
    fn leaving_frees_the_place() {
        let registry = registry(8, 8, 1, 8);
        let slot = registry.enter("10.0.0.1".parse().unwrap());
        slot.promote(Phase::Verified).unwrap();
        drop(slot);
        assert_eq!(registry.lock().by_id.len(), 0);
    }
}
