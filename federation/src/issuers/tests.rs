use super::*;
use sealane_core::state::SignatureAlgorithm;

fn keys(kid: &str) -> Keys {
    let key = IssuerKey { kid: Some(kid.to_owned()), algorithm: SignatureAlgorithm::Es256, key: vec![4; 65] };
    Arc::new(vec![key])
}

fn has(kid: &'static str) -> impl Fn(&[IssuerKey]) -> bool {
    move |keys| keys.iter().any(|key| key.kid.as_deref() == Some(kid))
}

fn said(step: &Step) -> &'static str {
    match step {
        Step::Use(_) => "use",
        Step::Wait(_) => "wait",
        Step::Ask => "ask",
        Step::GiveUp => "give up",
    }
}

#[test]
fn an_issuer_is_asked_when_its_keys_are_old_or_lack_one_and_seldom() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let known = Entry { keys: Some((keys("a"), start)), asked: Some(start), flight: None };
    let table = [
        ("a", 0, "use"),
        ("a", 299, "use"),
        ("a", 300, "ask"),
        // A key that is not known: at once after a pause, however often it is named.
        ("b", 9, "use"),
        ("b", 10, "ask"),
    ];
    for (kid, seconds, expected) in table {
        assert_eq!(said(&known.step(has(kid), at(seconds))), expected, "{kid} after {seconds} s");
    }
    // The issuer does not answer: what is known holds for an hour.
    let silent = |asked| Entry { asked: Some(at(asked)), ..known.clone() };
    assert_eq!(said(&silent(3_595).step(has("a"), at(3_599))), "use");
    assert_eq!(said(&silent(3_595).step(has("a"), at(3_600))), "give up");
    assert_eq!(said(&silent(3_595).step(has("a"), at(3_605))), "ask");
    assert_eq!(said(&Entry::default().step(has("a"), start)), "ask");
    let flight = async { None }.boxed().shared();
    let asking = Entry { flight: Some(flight), ..known.clone() };
    assert_eq!(said(&asking.step(has("a"), at(1))), "use");
    assert_eq!(said(&asking.step(has("b"), at(100))), "wait");
}

#[test]
fn the_issuers_kept_are_bounded_and_the_oldest_gives_way() {
    let source = |n: usize| Source { url: format!("https://{n:04}"), authorities: Vec::new() };
    let start = Instant::now();
    let mut entries = BTreeMap::new();
    for n in 0..1_000 {
        make_room(&mut entries, &source(n));
        let asked = Some(start + Duration::from_secs(n as u64));
        entries.insert(source(n), Entry { asked, ..Entry::default() });
    }
    assert_eq!(entries.len(), ISSUERS);
    assert!(entries.contains_key(&source(999)) && !entries.contains_key(&source(999 - ISSUERS)));
    make_room(&mut entries, &source(999));
    assert_eq!(entries.len(), ISSUERS);
}
