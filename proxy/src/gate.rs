//! The bounds at the door of a listener that strangers reach: connections in all and of one source, their rate, and
//! how many may dally in their handshakes.
//!
//! When too many dally the OLDEST of the source that has most of them is dropped, so that a flood evicts itself and a
//! prompt client gets through. Those who came a moment ago are spared for as long as there are not far too many: when a
//! whole cluster comes back at once, from one address, its handshakes are not dropped just before they end.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The most sources that are remembered.
const MAX_SOURCES: usize = 16 * 1024;
const WINDOW: Duration = Duration::from_secs(1);
/// Some round trips across continents, and the handshakes that stand before one's own.
const SPARED: Duration = Duration::from_secs(2);
/// So many times the usual number dally before nobody is spared any more.
const CROWD: usize = 4;

/// A range of addresses, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    network: IpAddr,
    bits: u8,
}

impl Cidr {
    fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| {
            let shift = width - u32::from(self.bits);
            a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
        };
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(n), IpAddr::V4(a)) => same(u32::from(n).into(), u32::from(a).into(), 32),
            (IpAddr::V6(n), IpAddr::V6(a)) => same(n.into(), a.into(), 128),
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("{s:?} is not an address range such as 10.0.0.0/8");
        let (network, bits) = s.split_once('/').ok_or_else(bad)?;
        let network: IpAddr = network.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        let width = if network.is_ipv4() { 32 } else { 128 };
        if bits > width { Err(bad()) } else { Ok(Cidr { network, bits }) }
    }
}

/// What a listener lets in.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Connections in all.
    pub(crate) total: usize,
    /// Connections of one source.
    pub(crate) per_source: usize,
    /// New connections of one source in a second.
    pub(crate) rate: u32,
    /// Connections whose peers have not yet done their part of the handshake.
    pub(crate) dallying: usize,
    /// How long one may dally before it makes room for others; beyond four times as many it may not at all.
    pub(crate) spared: Duration,
    /// Sources that may come at all; empty = every one.
    pub(crate) allow: Vec<Cidr>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            total: 20_000,
            per_source: 10_000,
            rate: 20_000,
            dallying: 1024,
            spared: SPARED,
            allow: Vec::new(),
        }
    }
}

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Its source is in no allowed range.
    NotAllowed,
    /// Too many connections.
    Full,
    /// Too many of its source.
    SourceFull,
    /// Too fast.
    TooFast,
}

impl Closed {
    /// One word for metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Closed::NotAllowed => "source_not_allowed",
            Closed::Full => "too_many_connections",
            Closed::SourceFull => "too_many_of_source",
            Closed::TooFast => "source_too_fast",
        }
    }
}

#[derive(Debug)]
struct Source {
    open: usize,
    window: Instant,
    in_window: u32,
    dallying: BTreeMap<u64, (Instant, CancellationToken)>,
}

#[derive(Debug, Default)]
struct Inside {
    open: usize,
    dallying: usize,
    next: u64,
    sources: HashMap<IpAddr, Source>,
}

/// The door of a listener.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Limits,
    inside: Mutex<Inside>,
}

impl Gate {
    /// An open one.
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Gate { limits, inside: Mutex::default() })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Counts stay right after a panic elsewhere: nothing panics between two changes under this lock.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in; it leaves when the pass is dropped.
    ///
    /// # Errors
    /// When a bound is reached.
    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr) -> Result<Pass, Closed> {
        self.enter_at(source, Instant::now())
    }

    fn enter_at(self: &Arc<Self>, source: IpAddr, now: Instant) -> Result<Pass, Closed> {
        let limits = &self.limits;
        if !limits.allow.is_empty() && !limits.allow.iter().any(|range| range.contains(source)) {
            return Err(Closed::NotAllowed);
        }
        let source = sealane_trust::acceptor::source(source);
        let mut inside = self.inside();
        let Inside { open, dallying, next, sources } = &mut *inside;
        if *open >= limits.total {
            return Err(Closed::Full);
        }
        if sources.len() >= MAX_SOURCES && !sources.contains_key(&source) {
            sources.retain(|_, s| s.open > 0 || now.duration_since(s.window) < WINDOW);
            if sources.len() >= MAX_SOURCES {
                return Err(Closed::Full);
            }
        }
        let entry = sources.entry(source).or_insert_with(|| Source {
            open: 0,
            window: now,
            in_window: 0,
            dallying: BTreeMap::new(),
        });
        if now.duration_since(entry.window) >= WINDOW {
            (entry.window, entry.in_window) = (now, 0);
        }
        if entry.in_window >= limits.rate {
            return Err(Closed::TooFast);
        }
        if entry.open >= limits.per_source {
            return Err(Closed::SourceFull);
        }
        entry.in_window += 1;
        entry.open += 1;
        *open += 1;
        *dallying += 1;
        *next += 1;
        let (number, evicted) = (*next, CancellationToken::new());
        entry.dallying.insert(number, (now, evicted.clone()));
        if *dallying > limits.dallying {
            let spared = if *dallying > CROWD * limits.dallying { Duration::ZERO } else { limits.spared };
            evict(&mut inside, now, spared);
        }
        Ok(Pass { gate: Arc::clone(self), source, number, evicted })
    }
}

/// Drops the oldest of the heaviest source, of those that are not to be spared.
fn evict(inside: &mut Inside, now: Instant, spared: Duration) {
    let old = |s: &&mut Source| {
        let oldest = s.dallying.first_key_value();
        oldest.is_some_and(|(_, (since, _))| now.saturating_duration_since(*since) >= spared)
    };
    let heaviest = inside.sources.values_mut().filter(old).max_by_key(|s| s.dallying.len());
    if let Some((_, (_, oldest))) = heaviest.and_then(|s| s.dallying.pop_first()) {
        inside.dallying -= 1;
        oldest.cancel();
    }
}

/// One connection's place inside.
pub(crate) struct Pass {
    gate: Arc<Gate>,
    source: IpAddr,
    number: u64,
    evicted: CancellationToken,
}

impl Pass {
    /// Waits until it must make room for others.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// It is served: it is not evicted any more.
    pub(crate) fn settle(&self) {
        let mut inside = self.gate.inside();
        let source = inside.sources.get_mut(&self.source);
        if source.and_then(|s| s.dallying.remove(&self.number)).is_some() {
            inside.dallying -= 1;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.settle();
        let mut inside = self.gate.inside();
        inside.open -= 1;
        if let Some(source) = inside.sources.get_mut(&self.source) {
            source.open -= 1;
            if source.open == 0 && source.window.elapsed() >= WINDOW {
                inside.sources.remove(&self.source);
            }
        }
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass")
            .field("source", &self.source)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, n])
    }

    fn gate(limits: Limits) -> Arc<Gate> {
        Gate::new(limits)
    }

    #[test]
    fn a_flood_evicts_its_own_oldest() {
        let gate = gate(Limits { dallying: 3, spared: Duration::ZERO, ..Limits::default() });
        let prompt = gate.enter(ip(1)).unwrap();
        let flood: Vec<Pass> = (0..5).map(|_| gate.enter(ip(2)).unwrap()).collect();
        let evicted: Vec<bool> = flood.iter().map(|p| p.evicted.is_cancelled()).collect();
        assert_eq!(evicted, [true, true, true, false, false]);
        assert!(!prompt.evicted.is_cancelled());
        prompt.settle();
        let _more = gate.enter(ip(2)).unwrap();
        assert!(!flood[3].evicted.is_cancelled(), "a settled one leaves room");
    }

    #[test]
    fn those_who_just_came_are_spared_until_there_are_far_too_many() {
        let door = gate(Limits { dallying: 3, ..Limits::default() });
        let begin = Instant::now();
        let crowd: Vec<Pass> = (0..12).map(|_| door.enter_at(ip(2), begin).unwrap()).collect();
        let evicted = |passes: &[Pass]| passes.iter().filter(|p| p.evicted.is_cancelled()).count();
        assert_eq!(evicted(&crowd), 0, "a whole cluster may come at once");
        let _one_more = door.enter_at(ip(2), begin).unwrap();
        assert_eq!(evicted(&crowd), 1, "but not without end");
        let _later = door.enter_at(ip(3), begin + SPARED).unwrap();
        assert_eq!(evicted(&crowd), 2, "and not for long");
    }

    #[test]
    fn one_host_of_many_addresses_is_one_source() {
        let door = gate(Limits { per_source: 2, ..Limits::default() });
        let v6 = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]);
        let _inside = (door.enter(v6(1)).unwrap(), door.enter(v6(2)).unwrap());
        assert_eq!(door.enter(v6(3)).unwrap_err(), Closed::SourceFull);
        assert!(door.enter(IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1])).is_ok());
    }

    #[test]
    fn each_bound_has_its_refusal() {
        let door = gate(Limits { total: 3, per_source: 2, ..Limits::default() });
        let inside = (door.enter(ip(1)).unwrap(), door.enter(ip(1)).unwrap());
        assert_eq!(door.enter(ip(1)).unwrap_err(), Closed::SourceFull);
        let third = door.enter(ip(2)).unwrap();
        assert_eq!(door.enter(ip(3)).unwrap_err(), Closed::Full);
        drop(inside);
        assert!(door.enter(ip(1)).is_ok());
        drop(third);
        let slow = gate(Limits { rate: 1, ..Limits::default() });
        let now = Instant::now();
        drop(slow.enter_at(ip(1), now).unwrap());
        assert_eq!(slow.enter_at(ip(1), now).unwrap_err(), Closed::TooFast);
        assert!(slow.enter_at(ip(1), now + WINDOW).is_ok());
        let private = gate(Limits { allow: vec!["127.0.0.8/30".parse().unwrap()], ..Limits::default() });
        assert!(private.enter(ip(10)).is_ok());
        assert_eq!(private.enter(ip(12)).unwrap_err(), Closed::NotAllowed);
    }

    #[test]
    fn ranges_are_parsed_and_compared_by_their_bits() {
        let contains =
            |range: &str, address: &str| range.parse::<Cidr>().unwrap().contains(address.parse().unwrap());
        assert!(contains("0.0.0.0/0", "9.9.9.9"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(contains("2001:db8::/32", "2001:db8::1"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "::/129"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
