use super::*;
use crate::fixture::{DAY, Federation, domain, id};
use crate::svid::Svid;

fn leaf(validity: Validity) -> Leaf {
    Leaf { spiffe_id: id("server/1"), cluster_id: None, validity, dns_sans: Vec::new() }
}

#[test]
fn an_authority_survives_its_pem() {
    let federation = Federation::new();
    let authority = &federation.issuing;
    let loaded =
        Authority::load(authority.chain_pem().as_bytes(), authority.key().to_pem().as_bytes()).unwrap();
    assert_eq!(loaded.chain(), authority.chain());
    assert_eq!(
        (loaded.trust_domain(), loaded.not_after(), loaded.may_delegate),
        (&domain(), authority.not_after(), false)
    );
    let key = PrivateKey::generate().unwrap();
    let issued = loaded.issue(key.public(), &leaf(Validity::starting(federation.now, DAY))).unwrap();
    assert_eq!(issued.chain.len(), 3);
    let svid = Svid::parse(&issued.chain[0]).unwrap();
    assert_eq!((svid.serial, svid.not_after), (issued.serial, issued.not_after));
    assert_eq!(svid.not_before, whole_seconds(Millis(federation.now.0 - 60_000)));
}

#[test]
fn half_of_a_life_is_ahead_however_short_it_is() {
    let federation = Federation::new();
    for (seconds, ahead) in [(4, 1), (10, 4), (60, 26), (600, 270), (86_400, 43_170)] {
        let (issued, _) = federation.leaf("agent/west", Duration::from_secs(seconds));
        let left = Svid::parse(&issued.chain[0]).unwrap().half_life().since(crate::clock::now()) / 1000;
        // Whole seconds, and the time that issuing took.
        assert!((ahead - 1..=ahead + 1).contains(&left), "{seconds} s: {left} s until half-life");
    }
}

#[test]
fn a_strange_key_or_certificate_makes_no_authority() {
    let federation = Federation::new();
    let load =
        |chain: &[CertificateDer<'static>], key: &PrivateKey| Authority::new(chain.to_vec(), key.clone());
    let other = PrivateKey::generate().unwrap();
    assert!(matches!(load(federation.root.chain(), &other), Err(IssueError::WrongKey)));
    let (issued, key) = federation.leaf("server/1", DAY);
    assert!(matches!(load(&issued.chain, &key), Err(IssueError::BadAuthority(_))));
    let reversed: Vec<_> = federation.issuing.chain().iter().rev().cloned().collect();
    assert!(matches!(load(&reversed, federation.root.key()), Err(IssueError::BadAuthority(_))));
    assert!(matches!(load(&[], &key), Err(IssueError::BadAuthority(_))));
}

#[test]
fn an_intermediate_signs_leaves_only() {
    let federation = Federation::new();
    let refused = federation.issuing.intermediate(
        PrivateKey::generate().unwrap(),
        "below",
        Validity::starting(federation.now, DAY),
    );
    assert!(matches!(refused, Err(IssueError::NotARoot)));
}

#[test]
fn nobody_issues_for_another_trust_domain() {
    let federation = Federation::new();
    let foreign = Leaf {
        spiffe_id: SpiffeId::parse("spiffe://other.example/server/1").unwrap(),
        ..leaf(Validity::starting(federation.now, DAY))
    };
    let refused = federation.issuing.issue(PrivateKey::generate().unwrap().public(), &foreign);
    assert!(matches!(refused, Err(IssueError::ForeignIdentity { .. })));
}

#[test]
fn nothing_outlives_its_issuer() {
    let federation = Federation::new();
    let key = PrivateKey::generate().unwrap();
    let long = federation
        .issuing
        .issue(key.public(), &leaf(Validity::starting(federation.now, 9999 * DAY)))
        .unwrap();
    assert_eq!(long.not_after, federation.issuing.not_after());
    assert_eq!(Svid::parse(&long.chain[0]).unwrap().not_after, long.not_after);
    let after = federation.issuing.not_after().plus(1);
    let refused = federation
        .issuing
        .issue(key.public(), &leaf(Validity { not_before: after, not_after: after.plus(1_000) }));
    assert!(matches!(refused, Err(IssueError::IssuerExpired)));
}

#[test]
fn an_empty_or_endless_validity_is_refused() {
    let now = clock::now();
    for bad in [
        Validity { not_before: now, not_after: now },
        Validity { not_before: now, not_after: Millis(u64::MAX) },
    ] {
        assert!(matches!(Authority::root(&domain(), "root", bad), Err(IssueError::BadValidity)));
    }
}
