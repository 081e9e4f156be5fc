//! Who holds a connection, and who must give one up.

use super::Limits;
use std::collections::{BTreeSet, HashMap};
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
    by_id: HashMap<u64, Entry>,
    handshake: Group,
    anonymous: Group,
    verified: Group,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    source: IpAddr,
    phase: Phase,
    evicted: CancellationToken,
}

/// The connections of one phase, by source and then by age: under a flood the next to go is found without a search
/// through all of them.
#[derive(Debug, Default)]
struct Group {
    by_source: HashMap<IpAddr, BTreeSet<u64>>,
    len: usize,
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
        if entries.handshake.len >= self.0.bounds.handshakes {
            entries.evict(Phase::Handshake, None);
        }
        let evicted = CancellationToken::new();
        let id = entries.insert(source, evicted.clone());
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
        let full = match phase {
            // The newer one matters more: the older had its chance.
            Phase::Anonymous => entries.anonymous.len >= bounds.anonymous && !entries.evict(phase, None),
            Phase::Verified => entries.verified.len >= bounds.connections,
            Phase::Handshake => false,
        };
        if full {
            return Err(Full::Connections);
        }
        entries.handshake.remove(source, self.id);
        entries.group(phase).insert(source, self.id);
        if let Some(entry) = entries.by_id.get_mut(&self.id) {
            entry.phase = phase;
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
        self.registry.lock().remove(self.id);
    }
}

impl Entries {
    fn group(&mut self, phase: Phase) -> &mut Group {
        match phase {
            Phase::Handshake => &mut self.handshake,
            Phase::Anonymous => &mut self.anonymous,
            Phase::Verified => &mut self.verified,
        }
    }

    fn open_of(&self, source: IpAddr) -> usize {
        self.anonymous.of(source) + self.verified.of(source)
    }

    fn insert(&mut self, source: IpAddr, evicted: CancellationToken) -> u64 {
        let id = self.next;
        self.next += 1;
        self.by_id.insert(id, Entry { source, phase: Phase::Handshake, evicted });
        self.handshake.insert(source, id);
        id
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.by_id.remove(&id)?;
        self.group(entry.phase).remove(entry.source, id);
        Some(entry)
    }

    /// Drops the oldest connection in this phase of the given source, or of the one that holds the most.
    fn evict(&mut self, phase: Phase, source: Option<IpAddr>) -> bool {
        let oldest = self.group(phase).oldest(source);
        let Some(entry) = oldest.and_then(|id| self.remove(id)) else { return false };
        entry.evicted.cancel();
        true
    }
}

impl Group {
    fn of(&self, source: IpAddr) -> usize {
        self.by_source.get(&source).map_or(0, BTreeSet::len)
    }

    fn insert(&mut self, source: IpAddr, id: u64) {
        self.by_source.entry(source).or_default().insert(id);
        self.len += 1;
    }

    fn remove(&mut self, source: IpAddr, id: u64) {
        if let Some(ids) = self.by_source.get_mut(&source)
            && ids.remove(&id)
        {
            self.len -= 1;
            if ids.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }

    fn oldest(&self, source: Option<IpAddr>) -> Option<u64> {
        let ids = match source {
            Some(source) => self.by_source.get(&source),
            None => self.by_source.values().max_by_key(|ids| ids.len()),
        };
        ids?.first().copied()
    }
}

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address.
#[must_use]
pub fn source(address: IpAddr) -> IpAddr {
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
        let entries = registry.lock();
        assert_eq!((entries.by_id.len(), entries.verified.len, entries.verified.by_source.len()), (0, 0, 0));
    }
}
