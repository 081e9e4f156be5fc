//! Somebody else who keeps changing what we own: the same content is written again at a bounded rate, so that it is not
//! fought over at the speed of the API server. What should be something else now is never held up by it.

use super::super::effect::Target;
use super::super::seen::Digest;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The first repair is made at once, the second one so long after it, each next one after twice the time, at most this.
const REPAIRS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What was left alone for so long is not fought over any more. It is more than the longest wait, so that a fight does not
/// end by our own patience.
const QUIET: Duration = Duration::from_secs(180);
/// After so many repairs in a row it is a fight, and no accident.
const FIGHT: u32 = 2;
/// What was written once and left alone for so long is forgotten where there is need of room.
const SETTLED: Duration = Duration::from_secs(10);
/// Of how many parts of objects it is remembered what was written last. Fights stay, as far as there is room.
const KNOWN: usize = 4_096;
/// How often room is made at most.
const SWEEP: Duration = Duration::from_secs(1);

/// How one part of an object was written last.
#[derive(Debug, Clone, PartialEq)]
struct Written {
    /// What was written; `None` when the object was removed.
    content: Option<Digest>,
    at: Instant,
    /// How often in a row the same was written again.
    repairs: u32,
}

impl Written {
    fn lasts(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < QUIET
    }

    /// When this content may be written; `None` at once.
    fn until(&self, content: Digest, now: Instant) -> Option<Instant> {
        let again = self.content == Some(content) && self.repairs > 0 && self.lasts(now);
        let until = self.at + pause(self.repairs);
        (again && until > now).then_some(until)
    }

    fn is_fought_over(&self, now: Instant) -> bool {
        self.repairs >= FIGHT && self.lasts(now)
    }
}

/// The wait after so many repairs.
fn pause(repairs: u32) -> Duration {
    REPAIRS.0.saturating_mul(1 << repairs.saturating_sub(1).min(20)).min(REPAIRS.1)
}

/// What was written lately.
#[derive(Debug, Default)]
pub(super) struct Contests {
    written: BTreeMap<Target, Written>,
    swept: Option<Instant>,
}

impl Contests {
    /// A part of an object was written, or the object removed (`None`). Says whether the same was written before, so that
    /// somebody must have changed it.
    pub(super) fn wrote(&mut self, target: Target, content: Option<Digest>, now: Instant) -> bool {
        if let Some(written) = self.written.get_mut(&target) {
            let same = content.is_some() && written.content == content;
            let before = if written.lasts(now) { written.repairs } else { 0 };
            *written = Written { content, at: now, repairs: before + u32::from(same) };
            return same;
        }
        if content.is_some() && self.has_room(now) {
            self.written.insert(target, Written { content, at: now, repairs: 0 });
        }
        false
    }

    fn has_room(&mut self, now: Instant) -> bool {
        let due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP);
        if self.written.len() >= KNOWN && due {
            self.swept = Some(now);
            self.written.retain(|_, w| w.lasts(now) && (w.repairs > 0 || now - w.at < SETTLED));
            if self.written.len() > KNOWN / 2 {
                self.written.retain(|_, w| w.repairs > 0);
            }
        }
        self.written.len() < KNOWN
    }

    /// When a part of an object may be written so; `None` at once.
    pub(super) fn until(&self, target: &Target, content: Digest, now: Instant) -> Option<Instant> {
        self.written.get(target)?.until(content, now)
    }

    /// Whether a part of an object is fought over.
    pub(super) fn is_fought_over(&self, target: &Target, now: Instant) -> bool {
        self.written.get(target).is_some_and(|w| w.is_fought_over(now))
    }

    /// Everything that is fought over.
    pub(super) fn fought_over(&self, now: Instant) -> impl Iterator<Item = &Target> {
        self.written.iter().filter(move |(_, w)| w.is_fought_over(now)).map(|(target, _)| target)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::seen::{Kind, ObjectKey, Part};
    use super::*;

    fn target(name: &str) -> Target {
        let namespace = "shop".parse().unwrap();
        (ObjectKey { kind: Kind::Import, namespace, name: name.to_owned() }, Part::Main)
    }

    fn content(text: &str) -> Digest {
        Digest::of(Kind::Import, Part::Main, &serde_json::json!({ "spec": text }))
    }

    /// Somebody changes it the moment it is written. Gives after how many seconds it is written again each time.
    fn fight(contests: &mut Contests, start: Instant, times: usize) -> Vec<u64> {
        let (web, ours) = (target("web"), content("a"));
        let mut now = start;
        let mut writes = Vec::new();
        for _ in 0..times {
            now = contests.until(&web, ours, now).unwrap_or(now);
            contests.wrote(web.clone(), Some(ours), now);
            writes.push((now - start).as_secs());
        }
        writes
    }

    #[test]
    fn a_repair_is_made_at_once_and_a_fight_slows_down() {
        let (mut contests, start) = (Contests::default(), Instant::now());
        assert_eq!(fight(&mut contests, start, 11), [0, 0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        let last = start + Duration::from_secs(243);
        assert!(contests.is_fought_over(&target("web"), last));
        assert_eq!(contests.fought_over(last).count(), 1);
        assert_eq!(
            contests.until(&target("web"), content("b"), last),
            None,
            "what is wanted now does not wait"
        );
        assert_eq!(contests.until(&target("cart"), content("a"), last), None);

        let quiet = last + QUIET;
        assert_eq!(
            (contests.is_fought_over(&target("web"), quiet), contests.fought_over(quiet).count()),
            (false, 0)
        );
        assert_eq!(fight(&mut contests, quiet, 4), [0, 1, 3, 7], "it begins anew");
    }

    #[test]
    fn what_changes_or_goes_and_comes_is_no_fight() {
        let (mut contests, now) = (Contests::default(), Instant::now());
        for round in 0..20 {
            let wanted = content(&round.to_string());
            assert_eq!(contests.until(&target("web"), wanted, now), None);
            assert!(!contests.wrote(target("web"), Some(wanted), now));
        }
        for _ in 0..20 {
            contests.wrote(target("web"), None, now);
            assert_eq!(contests.until(&target("web"), content("a"), now), None);
            assert!(!contests.wrote(target("web"), Some(content("a")), now));
        }
        assert!(contests.wrote(target("web"), Some(content("a")), now), "and this is a repair");
    }

    #[test]
    fn a_fight_is_remembered_whatever_else_is_written() {
        let (mut contests, mut now) = (Contests::default(), Instant::now());
        fight(&mut contests, now, 3);
        for round in 0..40_000_u32 {
            now += Duration::from_millis(1);
            contests.wrote(target(&format!("n{round}")), Some(content("a")), now);
            assert!(contests.written.len() <= KNOWN);
        }
        assert!(contests.is_fought_over(&target("web"), now));
    }
}
