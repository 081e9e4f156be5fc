//! How often strangers may try to join: each source by itself, so that one who tries all day starves nobody else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

/// Joins that one source may try in a burst, and then in a second.
const BURST: f64 = 50.0;
const RATE: f64 = 20.0;
/// The sources that are kept apart. One that is quiet for some seconds needs no place.
const SOURCES: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn at(self, now: Instant) -> Bucket {
        let filled = self.left + now.saturating_duration_since(self.at).as_secs_f64() * RATE;
        Bucket { left: filled.min(BURST), at: now }
    }
}

/// What each source has left.
#[derive(Debug, Default)]
pub(super) struct Rates(BTreeMap<IpAddr, Bucket>);

impl Rates {
    /// Whether a source may try now, which then counts.
    pub(super) fn admit(&mut self, source: IpAddr, now: Instant) -> bool {
        if !self.0.contains_key(&source) {
            self.make_room(now);
        }
        let bucket = self.0.entry(source).or_insert(Bucket { left: BURST, at: now });
        *bucket = bucket.at(now);
        let admitted = bucket.left >= 1.0;
        if admitted {
            bucket.left -= 1.0;
        }
        admitted
    }

    /// Forgets who is no different from a newcomer; among more sources than that, who is the least so.
    fn make_room(&mut self, now: Instant) {
        if self.0.len() < SOURCES {
            return;
        }
        self.0.retain(|_, bucket| bucket.at(now).left < BURST);
        while self.0.len() >= SOURCES {
            let left = |bucket: &Bucket| bucket.at(now).left;
            let fullest = self.0.iter().max_by(|(_, a), (_, b)| left(a).total_cmp(&left(b)));
            let Some(fullest) = fullest.map(|(source, _)| *source) else { return };
            self.0.remove(&fullest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn source(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn one_source_starves_itself_and_nobody_else() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let admitted = (0..1_000).filter(|_| rates.admit(source(1), now)).count();
        assert_eq!(admitted, 50);
        assert!(rates.admit(source(2), now));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..1_000).filter(|_| rates.admit(source(1), later)).count(), 20);
        let rested = now + Duration::from_secs(60);
        assert_eq!((0..1_000).filter(|_| rates.admit(source(1), rested)).count(), 50);
    }

    #[test]
    fn the_sources_kept_are_bounded_and_the_busiest_is_not_forgotten() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        while rates.admit(source(0), now) {}
        for n in 1..20_000 {
            assert!(rates.admit(source(n), now));
        }
        assert_eq!(rates.0.len(), SOURCES);
        assert!(!rates.admit(source(0), now));
    }
}
