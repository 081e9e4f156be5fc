use super::*;
use sealane_core::command::{Action as Do, AdminAction, Command};
use sealane_core::identity::{FederationId, InstanceId, Principal};
use sealane_core::name::{ClusterName, ServiceAccount, TrustDomain};
use sealane_core::state::{Grant, Limits, TokenScope};
use sealane_core::time::Millis;

/// A state with some clusters, driven by the commands that the leases propose.
struct Bench {
    state: State,
    index: u64,
    leases: Leases,
    now: Instant,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn session(n: u64) -> SessionId {
    SessionId([u8::try_from(n).unwrap(); 16])
}

impl Bench {
    fn new(clusters: u64) -> Self {
        let mut bench = Bench { state: State::empty(), index: 0, leases: Leases::default(), now: ms(10_000) };
        let trust_domain = TrustDomain::parse("fed").unwrap();
        let federation = FederationId([1; 16]);
        bench.apply(None, Do::Found { federation, trust_domain, limits: Limits::default() });
        for n in 1..=clusters {
            bench.join(n);
        }
        let now = bench.now;
        bench.leases.lead(now, 1, &bench.state);
        bench
    }

    fn join(&mut self, n: u64) {
        let name = ClusterName::parse(&format!("c{n}")).unwrap();
        let hash = [u8::try_from(n).unwrap(); 32];
        let trust_domain = TrustDomain::parse(&format!("c{n}.fed")).unwrap();
        let scope = TokenScope::Cluster {
            name: name.clone(),
            trust_domain,
            exports: Grant::all(),
            imports: Grant::all(),
        };
        let action = AdminAction::CreateToken { hash, scope, expires: Millis(u64::MAX) };
        let admin = Principal::Admin(ServiceAccount::parse("root").unwrap());
        self.apply(Some(admin), Do::Admin { key: [u8::try_from(n).unwrap(); 16], action });
        self.apply(None, Do::Join { token: hash, key: hash, not_after: Millis(u64::MAX) });
        self.open(n, session(n));
    }

    fn open(&mut self, n: u64, session: SessionId) {
        let agent = Principal::Agent(ClusterName::parse(&format!("c{n}")).unwrap());
        let instance = InstanceId([1; 16]);
        self.apply(Some(agent), Do::OpenSession { cluster: ClusterId(n), session, instance, uid: None });
    }

    fn apply(&mut self, principal: Option<Principal>, action: Do) {
        self.index += 1;
        let at = Millis(u64::try_from(self.now.as_millis()).unwrap());
        let command = Command { min_version: 1, at, principal, action };
        self.state.apply(self.index, &command).unwrap();
    }

    /// Runs for a while in beats of 250 ms in which the given clusters are heard; the actions are applied and listed.
    fn run(&mut self, span: Duration, heard: &[u64]) -> Vec<Action> {
        let end = self.now + span;
        let mut all = Vec::new();
        while self.now < end {
            self.now += ms(250);
            let mut actions = Vec::new();
            for n in heard {
                actions.extend(self.leases.heard(self.now, ClusterId(*n), session(*n)));
            }
            actions.extend(self.leases.tick(self.now, &self.state));
            self.commit(&actions);
            all.extend(actions);
        }
        all
    }

    fn commit(&mut self, actions: &[Action]) {
        for action in actions {
            self.apply(
                None,
                match *action {
                    Action::Lapse(cluster, session) => Do::Lapse { cluster, session },
                    Action::Close(cluster, session) => Do::Close { cluster, session },
                    Action::Revive(cluster, session) => Do::Revive { cluster, session },
                },
            );
        }
    }
}

fn lapse(n: u64) -> Action {
    Action::Lapse(ClusterId(n), session(n))
}

#[test]
fn one_of_three_lapses_after_a_whole_ttl_and_not_before() {
    let mut bench = Bench::new(3);
    assert_eq!(bench.run(TTL - ms(250), &[1, 2]), []);
    assert_eq!(bench.run(ms(250), &[1, 2]), [lapse(3)]);
    assert_eq!(bench.leases.suspected(), None);
    assert_eq!(bench.run(TTL * 3, &[1, 2]), [], "it lapses once");
}

#[test]
fn one_of_two_and_a_single_one_lapse() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.run(TTL, &[1]), [lapse(2)]);
    bench.run(TTL * 2, &[1]);
    assert_eq!(bench.run(TTL, &[]), [lapse(1)], "the only live one, long after the other");
}

#[test]
fn a_lapsed_session_that_is_heard_revives_at_once_and_once() {
    let mut bench = Bench::new(3);
    bench.run(TTL, &[1, 2]);
    assert_eq!(bench.run(ms(250), &[1, 2, 3]), [Action::Revive(ClusterId(3), session(3))]);
    assert_eq!(bench.run(TTL, &[1, 2, 3]), []);
    assert!(matches!(bench.state.clusters[&ClusterId(3)].lease, Lease::Live { .. }));
}

#[test]
fn a_stranger_session_keeps_nothing_alive() {
    let mut bench = Bench::new(3);
    let mut actions = Vec::new();
    for _ in 0..20 {
        bench.now += ms(250);
        assert_eq!(bench.leases.heard(bench.now, ClusterId(3), session(9)), None);
        bench.leases.heard(bench.now, ClusterId(1), session(1));
        bench.leases.heard(bench.now, ClusterId(2), session(2));
        actions.extend(bench.leases.tick(bench.now, &bench.state));
    }
    assert_eq!(actions, [lapse(3)]);
}

#[test]
fn most_going_silent_at_once_is_our_own_fault_until_they_are_heard() {
    let mut bench = Bench::new(3);
    let close = |n| Action::Close(ClusterId(n), session(n));
    let said = bench.run(TTL * 4, &[1]);
    assert_eq!(said, [close(2), close(3)], "two of three: suspected, nothing lapses");
    assert!(bench.leases.suspected().is_some());
    assert_eq!(bench.run(ms(250), &[1, 2]), [lapse(3)], "one came back, so the other is gone indeed");
    assert_eq!(bench.leases.suspected(), None);
}

#[test]
fn phases_of_heartbeats_do_not_let_the_first_of_many_slip_through() {
    let mut bench = Bench::new(4);
    // The last heartbeats of the four lie up to a second apart.
    assert_eq!(bench.run(ms(250), &[1, 2, 3, 4]), []);
    assert_eq!(bench.run(ms(250), &[2, 3, 4]), []);
    assert_eq!(bench.run(ms(250), &[3, 4]), []);
    assert_eq!(bench.run(ms(500), &[4]), []);
    let close = |n| Action::Close(ClusterId(n), session(n));
    assert_eq!(bench.run(TTL * 2, &[]), [close(1), close(2), close(3), close(4)]);
    assert!(bench.leases.suspected().is_some());
}

/// Servers and agents come back from the same power cut: every agent is a new process, and no lease may lapse.
#[test]
fn agents_restarted_together_with_the_servers_get_in_though_nothing_lapses() {
    let mut bench = Bench::new(2);
    let anew = |bench: &mut Bench, n: u64| {
        let agent = Principal::Agent(ClusterName::parse(&format!("c{n}")).unwrap());
        let (session, instance) = (SessionId([99; 16]), InstanceId([9; 16]));
        bench.apply(Some(agent), Do::OpenSession { cluster: ClusterId(n), session, instance, uid: None });
        bench.state.clusters[&ClusterId(n)].session.as_ref().unwrap().instance == instance
    };
    bench.run(TTL - ms(250), &[]);
    assert!(!anew(&mut bench, 1) && !anew(&mut bench, 2), "they may live yet");
    bench.run(ms(250), &[]);
    assert!(bench.leases.suspected().is_some());
    assert!(anew(&mut bench, 1) && anew(&mut bench, 2));
    assert!(bench.state.clusters.values().all(|c| matches!(c.lease, Lease::Live { .. })));
}

#[test]
fn an_operator_confirms_and_the_silent_ones_lapse() {
    let mut bench = Bench::new(3);
    bench.run(TTL * 2, &[1]);
    let actions = bench.leases.confirm(bench.now);
    assert_eq!(actions, [lapse(2), lapse(3)]);
    bench.commit(&actions);
    assert_eq!(bench.run(TTL * 2, &[1]), []);
    assert_eq!(bench.leases.suspected(), None);
    assert!(matches!(bench.state.clusters[&ClusterId(2)].lease, Lease::Lapsed { .. }));
}

#[test]
fn a_stalled_loop_and_a_new_leader_grant_a_full_ttl() {
    let mut bench = Bench::new(3);
    bench.run(TTL - ms(500), &[1, 2]);
    bench.now += ms(1_250);
    assert_eq!(bench.leases.tick(bench.now, &bench.state), [], "the loop stood still");
    assert_eq!(bench.run(TTL - ms(250), &[1, 2]), []);
    let now = bench.now;
    bench.leases.lead(now, 2, &bench.state);
    assert_eq!(bench.run(TTL - ms(250), &[1, 2]), []);
    assert_eq!(bench.run(ms(250), &[1, 2]), [lapse(3)]);
}

#[test]
fn a_new_session_and_a_removed_cluster_start_afresh() {
    let mut bench = Bench::new(3);
    bench.run(TTL - ms(250), &[1, 2]);
    bench.open(3, session(7));
    // It is noticed by the next beat.
    assert_eq!(bench.run(TTL, &[1, 2]), []);
    assert_eq!(bench.run(ms(250), &[1, 2]), [Action::Lapse(ClusterId(3), session(7))]);
}

#[test]
fn a_lapse_without_effect_is_proposed_again() {
    let mut bench = Bench::new(1);
    bench.now += TTL / 2;
    bench.leases.tick(bench.now, &bench.state);
    let mut proposals = 0;
    for _ in 0..32 {
        bench.now += ms(250);
        proposals += bench.leases.tick(bench.now, &bench.state).len();
    }
    assert_eq!(proposals, 4, "once a second from the TTL on");
}

#[test]
fn a_follower_decides_nothing() {
    let mut bench = Bench::new(2);
    bench.leases.follow();
    assert_eq!(bench.run(TTL * 2, &[]), []);
}
