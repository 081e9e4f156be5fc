//! Lanes: whether the way to another cluster is open, from what the gateways' probes say.
//!
//! Pure. Results are gathered in rounds: a round is over when every gateway reported, or after a second. One success
//! makes a round good (one gateway that gets through is a way). Three bad rounds close a lane, two good ones open it;
//! a lane of which nothing was known takes its first success. A lane that nobody reports on for three rounds is forgotten:
//! the last word of a gateway that died would stand as evidence for ever.

use sealane_core::name::ClusterName;
use sealane_core::state::LaneVerdict;
use std::collections::{BTreeMap, BTreeSet};

/// Bad rounds that close a lane.
const TO_DOWN: u32 = 3;
/// Good rounds that open it again.
const TO_UP: u32 = 2;
/// How long a round waits for gateways that do not report.
pub const ROUND_MS: u64 = 1_000;
/// After how long without a report a lane is forgotten: three rounds at their longest, a probe's interval and time-out.
pub const FORGET_MS: u64 = 3 * 2 * ROUND_MS;

/// One gateway that reports, for as long as it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reporter(pub u64);

/// What a probe brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The cluster that was probed.
    pub cluster: ClusterName,
    /// The round-trip time in microseconds, or why it failed.
    pub result: Result<u32, String>,
}

/// One lane as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lane {
    /// Whether it is open; `None` before enough is known.
    pub verdict: Option<LaneVerdict>,
    /// The smoothed round-trip time in microseconds.
    pub rtt_us: Option<u32>,
    /// When the verdict last changed, in milliseconds of the caller's clock.
    pub since_ms: u64,
    /// Why the last failed probe failed.
    pub error: Option<String>,
    good: u32,
    bad: u32,
    heard_ms: u64,
    round: Round,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Round {
    began_ms: u64,
    reporters: BTreeSet<Reporter>,
    good: bool,
}

/// A verdict that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The cluster at the other end.
    pub cluster: ClusterName,
    /// The new verdict; `None` when nobody reports any more.
    pub verdict: Option<LaneVerdict>,
    /// The round-trip time.
    pub rtt_us: Option<u32>,
}

/// The verdicts alone, with the round-trip time at the last transition.
pub type Verdicts = BTreeMap<ClusterName, (LaneVerdict, Option<u32>)>;

/// Every lane of this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lanes {
    lanes: BTreeMap<ClusterName, Lane>,
    reporters: BTreeSet<Reporter>,
}

impl Lanes {
    /// A gateway connected.
    pub fn join(&mut self, reporter: Reporter) {
        self.reporters.insert(reporter);
    }

    /// A gateway left. Its last word stands until others speak, or nobody does for [`FORGET_MS`].
    pub fn leave(&mut self, reporter: Reporter) {
        self.reporters.remove(&reporter);
    }

    /// Takes a result in.
    pub fn report(&mut self, reporter: Reporter, probe: Probe, now_ms: u64) -> Vec<Transition> {
        let lane = self.lanes.entry(probe.cluster.clone()).or_default();
        let mut out = Vec::new();
        // A gateway that speaks twice begins a new round.
        if lane.round.reporters.contains(&reporter) {
            out.extend(lane.close(&probe.cluster, now_ms));
        }
        if lane.round.reporters.is_empty() {
            lane.round.began_ms = now_ms;
        }
        lane.round.reporters.insert(reporter);
        lane.heard_ms = now_ms;
        match probe.result {
            Ok(rtt) => {
                lane.round.good = true;
                lane.rtt_us = Some(lane.rtt_us.map_or(rtt, |old| smooth(old, rtt)));
            }
            Err(error) => lane.error = Some(error),
        }
        if self.reporters.is_subset(&lane.round.reporters) {
            out.extend(lane.close(&probe.cluster, now_ms));
        }
        out
    }

    /// Closes the rounds whose time is over, and forgets the lanes that nobody reports on.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Transition> {
        let beat = |(cluster, lane): (&ClusterName, &mut Lane)| {
            if !lane.round.reporters.is_empty() && now_ms >= lane.round.began_ms + ROUND_MS {
                return lane.close(cluster, now_ms);
            }
            let silent = lane.verdict.is_some() && now_ms >= lane.heard_ms + FORGET_MS;
            silent.then(|| lane.forget(cluster, now_ms))
        };
        self.lanes.iter_mut().filter_map(beat).collect()
    }

    /// Forgets clusters that are no peers any more.
    pub fn retain(&mut self, peers: &BTreeSet<ClusterName>) {
        self.lanes.retain(|cluster, _| peers.contains(cluster));
    }

    /// Every lane, for status.
    #[must_use]
    pub fn all(&self) -> &BTreeMap<ClusterName, Lane> {
        &self.lanes
    }

    /// The verdict of every lane that has one.
    #[must_use]
    pub fn verdicts(&self) -> Verdicts {
        let decided =
            |(cluster, lane): (&ClusterName, &Lane)| Some((cluster.clone(), (lane.verdict?, lane.rtt_us)));
        self.lanes.iter().filter_map(decided).collect()
    }
}

impl Lane {
    fn close(&mut self, cluster: &ClusterName, now_ms: u64) -> Option<Transition> {
        let round = std::mem::take(&mut self.round);
        (self.good, self.bad) = if round.good { (self.good + 1, 0) } else { (0, self.bad + 1) };
        let verdict = match self.verdict {
            None if self.good >= 1 => LaneVerdict::Up,
            Some(LaneVerdict::Down) if self.good >= TO_UP => LaneVerdict::Up,
            None | Some(LaneVerdict::Up) if self.bad >= TO_DOWN => LaneVerdict::Down,
            _ => return None,
        };
        self.since_ms = now_ms;
        self.verdict = Some(verdict);
        if verdict == LaneVerdict::Up {
            self.error = None;
        }
        Some(Transition { cluster: cluster.clone(), verdict: Some(verdict), rtt_us: self.rtt_us })
    }

    fn forget(&mut self, cluster: &ClusterName, now_ms: u64) -> Transition {
        let error = Some("no gateway reports".to_owned());
        *self = Lane { since_ms: now_ms, heard_ms: self.heard_ms, error, ..Lane::default() };
        Transition { cluster: cluster.clone(), verdict: None, rtt_us: None }
    }
}

/// An eighth of the new value, as TCP does.
fn smooth(old: u32, new: u32) -> u32 {
    u32::try_from((u64::from(old) * 7 + u64::from(new)) / 8).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn west() -> ClusterName {
        ClusterName::parse("west").unwrap()
    }

    /// Plays results of reporters (`+` good, `-` bad, in gateway 1 and `P`, `M` the same in gateway 2) at 1 s each.
    fn play(gateways: u64, script: &str) -> String {
        let mut lanes = Lanes::default();
        (1..=gateways).for_each(|g| lanes.join(Reporter(g)));
        let mut out = String::new();
        for (at, c) in script.chars().enumerate() {
            let now = at as u64 * 1_000 / gateways;
            let (reporter, good) = match c {
                '+' => (1, true),
                '-' => (1, false),
                'P' => (2, true),
                _ => (2, false),
            };
            let result = if good { Ok(100) } else { Err("no".to_owned()) };
            let all = lanes.report(Reporter(reporter), Probe { cluster: west(), result }, now);
            out.push(match all.last().and_then(|t| t.verdict) {
                None => '.',
                Some(LaneVerdict::Up) => 'U',
                Some(LaneVerdict::Down) => 'D',
            });
        }
        out
    }

    #[test]
    fn the_debounce_table() {
        let table = [
            (1, "+", "U"),
            (1, "---", "..D"),
            (1, "+--+--+", "U......"),
            (1, "+---", "U..D"),
            (1, "+---+-+-++", "U..D.....U"),
            (1, "+---+----++", "U..D......U"),
            (2, "+M-P-M", ".U...."),
            (2, "+P-M-M-M", ".U.....D"),
            (2, "-P-P-P", ".U...."),
        ];
        for (gateways, script, expected) in table {
            assert_eq!(play(gateways, script), expected, "{gateways} {script}");
        }
    }

    #[test]
    fn a_silent_gateway_does_not_hold_a_round_open() {
        let mut lanes = Lanes::default();
        lanes.join(Reporter(1));
        lanes.join(Reporter(2));
        let failed = || Probe { cluster: west(), result: Err("refused".to_owned()) };
        assert_eq!(lanes.report(Reporter(1), failed(), 0), []);
        assert_eq!(lanes.tick(999), []);
        assert_eq!(lanes.tick(1_000), []);
        lanes.report(Reporter(1), failed(), 1_100);
        lanes.tick(2_100);
        lanes.report(Reporter(1), failed(), 2_200);
        let down = Transition { cluster: west(), verdict: Some(LaneVerdict::Down), rtt_us: None };
        assert_eq!(lanes.tick(3_200), [down]);
        assert_eq!(lanes.all()[&west()].error.as_deref(), Some("refused"));
        assert_eq!(lanes.tick(2_200 + FORGET_MS - 1), [], "no round, no verdict");
    }

    #[test]
    fn a_verdict_on_which_nobody_reports_is_taken_back() {
        let mut lanes = Lanes::default();
        lanes.join(Reporter(1));
        let good = |lanes: &mut Lanes, by: u64, at: u64| {
            lanes.report(Reporter(by), Probe { cluster: west(), result: Ok(100) }, at)
        };
        let up = Transition { cluster: west(), verdict: Some(LaneVerdict::Up), rtt_us: Some(100) };
        assert_eq!(good(&mut lanes, 1, 0), std::slice::from_ref(&up));
        lanes.leave(Reporter(1));
        assert_eq!(lanes.tick(FORGET_MS - 1), [], "a gateway may be restarted meanwhile");
        assert_eq!(lanes.verdicts(), Verdicts::from([(west(), (LaneVerdict::Up, Some(100)))]));
        let unknown = Transition { cluster: west(), verdict: None, rtt_us: None };
        assert_eq!(lanes.tick(FORGET_MS), [unknown]);
        assert_eq!(lanes.verdicts(), Verdicts::new());
        assert_eq!(lanes.tick(FORGET_MS * 2), [], "once");
        lanes.join(Reporter(2));
        assert_eq!(good(&mut lanes, 2, FORGET_MS * 3), [up], "the first success counts again");
    }

    #[test]
    fn round_trip_times_are_smoothed() {
        let mut lanes = Lanes::default();
        lanes.join(Reporter(1));
        for rtt in [800, 1_600] {
            lanes.report(Reporter(1), Probe { cluster: west(), result: Ok(rtt) }, 0);
        }
        assert_eq!(lanes.all()[&west()].rtt_us, Some(900));
    }
}
