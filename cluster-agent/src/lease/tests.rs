use super::*;

fn record(holder: &str, transitions: u32, version: &str) -> Record {
    let holder = Some(holder.to_owned()).filter(|h| !h.is_empty());
    let uid = "lease".to_owned();
    let acquired = Some(Timestamp::UNIX_EPOCH);
    Record { uid, holder, duration: DURATION, transitions, acquired, version: version.to_owned() }
}

fn election(me: &str) -> Election {
    Election::new(Name { own: me.to_owned(), former: Vec::new() })
}

/// Takes it over.
fn write(term: u32, over: &str) -> Step {
    Step::Write { term, over: Some(over.to_owned()), acquired: None }
}

/// Goes on with a term.
fn renew(term: u32, over: &str) -> Step {
    Step::Write { term, over: Some(over.to_owned()), acquired: Some(Timestamp::UNIX_EPOCH) }
}

/// Makes it.
fn make(term: u32) -> Step {
    Step::Write { term, over: None, acquired: None }
}

fn leader(term: u32, renewed: Instant) -> Standing {
    Standing::Leader { term, until: Some(renewed + DURATION - WRITE), agent: Some(agent("lease")) }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn who_finds_no_lease_makes_it_and_renews_it() {
    let start = Instant::now();
    let mut a = election("a");
    assert_eq!((a.step(start), a.standing()), (Step::Look, Standing::Follower));
    a.saw(start, None);
    assert_eq!(a.step(start), make(0));
    a.wrote(start, record("a", 0, "1"));
    assert_eq!(a.standing(), leader(0, start));
    assert_eq!(a.step(start + s(2)), renew(0, "1"));
    a.wrote(start + s(2), record("a", 0, "2"));
    assert_eq!(a.standing(), leader(0, start + s(2)));
}

#[test]
fn another_takes_over_only_what_stood_still_for_its_whole_duration() {
    let start = Instant::now();
    let mut b = election("b");
    b.saw(start, Some(record("a", 3, "7")));
    assert_eq!(b.step(start + s(9)), Step::Look);
    b.saw(start + s(9), Some(record("a", 3, "8")));
    assert_eq!(b.step(start + s(18)), Step::Look, "it was renewed at 9");
    b.saw(start + s(18), Some(record("a", 3, "8")));
    assert_eq!(b.step(start + s(19)), write(4, "8"));
    b.refused();
    assert_eq!(b.step(start + s(19)), Step::Look, "somebody was faster");
    b.saw(start + s(20), Some(record("c", 4, "9")));
    assert_eq!((b.step(start + s(29)), b.standing()), (Step::Look, Standing::Follower));
}

#[test]
fn a_lease_that_somebody_deleted_is_still_its_holders_for_its_duration() {
    let start = Instant::now();
    let mut b = election("b");
    b.saw(start, Some(record("a", 3, "7")));
    b.saw(start + s(2), None);
    assert_eq!(b.step(start + s(9)), Step::Look);
    assert_eq!(b.step(start + s(10)), write(4, "7"));
    b.refused();
    b.saw(start + s(10), None);
    assert_eq!(b.step(start + s(10)), make(0));
}

#[test]
fn what_was_given_back_is_taken_at_once() {
    let start = Instant::now();
    let mut b = election("b");
    b.saw(start, Some(record("", 3, "7")));
    assert_eq!(b.step(start), write(4, "7"));
}

#[test]
fn a_lease_taken_by_a_request_whose_answer_was_lost_is_taken_in_a_term_of_its_own() {
    let start = Instant::now();
    let mut a = election("a");
    a.saw(start, None);
    assert_eq!(a.step(start), make(0));
    a.refused();
    assert_eq!(a.step(start + s(1)), Step::Look);
    a.saw(start + s(1), Some(record("a", 0, "1")));
    assert_eq!((a.step(start + s(1)), a.standing()), (write(1, "1"), Standing::Follower));
}

#[test]
fn another_process_of_the_same_pod_waits_as_every_other() {
    let start = Instant::now();
    let (mut old, mut new) = (election("agent-0_1"), election("agent-0_2"));
    old.wrote(start, record("agent-0_1", 3, "7"));
    new.saw(start + s(1), Some(record("agent-0_1", 3, "7")));
    assert_eq!(new.step(start + s(10)), Step::Look);
    assert_eq!(new.step(start + s(11)), write(4, "7"));
    new.wrote(start + s(11), record("agent-0_2", 4, "8"));
    old.refused();
    old.saw(start + s(12), Some(record("agent-0_2", 4, "8")));
    assert_eq!((old.step(start + s(13)), old.standing()), (Step::Look, Standing::Follower));
}

#[test]
fn who_knows_that_the_holder_is_dead_takes_over_at_once_in_a_later_term() {
    let start = Instant::now();
    let former = ["agent-0_1", "agent-0_2"].map(str::to_owned).to_vec();
    let mut new = Election::new(Name { own: "agent-0_3".to_owned(), former });
    new.saw(start, Some(record("agent-0_1", 3, "7")));
    assert_eq!((new.step(start), new.standing()), (write(4, "7"), Standing::Follower));
    new.saw(start, Some(record("agent-1_1", 4, "8")));
    assert_eq!(new.step(start), Step::Look, "another replica holds it");
}

#[test]
fn a_term_outlasts_an_api_server_that_is_away_and_a_lost_answer() {
    let start = Instant::now();
    let mut a = election("a");
    a.wrote(start, record("a", 3, "7"));
    // The answer to a renewal was lost: it is found to have been applied.
    a.refused();
    assert_eq!(a.standing(), leader(3, start));
    a.saw(start + s(60), Some(record("a", 3, "8")));
    assert_eq!(a.step(start + s(60)), renew(3, "8"));
    // Somebody makes another Lease that says the same: it is not ours.
    let mut other = a.clone();
    other.saw(start + s(61), Some(Record { uid: "other".to_owned(), ..record("a", 3, "8") }));
    assert_eq!(other.standing(), Standing::Follower);
    // Somebody deletes the Lease: the term after it is a later one all the same.
    a.saw(start + s(61), None);
    assert_eq!(a.step(start + s(61)), make(4));
}

#[test]
fn a_holder_that_was_stopped_never_writes_after_the_take_over() {
    // Whenever the holder is stopped within a renewal, its right ends a write before the other's begins.
    let start = Instant::now();
    let mut a = election("a");
    a.wrote(start, record("a", 1, "1"));
    let Standing::Leader { until: Some(until), .. } = a.standing() else { panic!("follows") };
    for seen_after in [0, 1, 2, 5] {
        let mut b = election("b");
        b.saw(start + s(seen_after), Some(record("a", 1, "1")));
        let mut now = start;
        while b.step(now) == Step::Look {
            now += Duration::from_millis(100);
        }
        assert!(until + WRITE <= now, "seen after {seen_after} s");
    }
}

#[tokio::test]
async fn leadership_ends_by_the_clock_and_a_term_by_another_holder() {
    let (sender, receiver) = watch::channel(Standing::Follower);
    let mut leadership = Leadership::new(receiver);
    assert!(!leadership.may_write());
    sender.send_replace(Standing::Leader { term: 2, until: Some(Instant::now() + s(600)), agent: None });
    assert_eq!(leadership.begun().await, 2);
    leadership.writable().await;
    sender.send_replace(Standing::Leader { term: 2, until: Some(Instant::now()), agent: None });
    assert_eq!((leadership.may_write(), leadership.term()), (false, Some(2)));
    sender.send_replace(Standing::Leader { term: 3, until: None, agent: None });
    leadership.over(2).await;
    assert!(leadership.may_write() && Leadership::alone().may_write());
}
