use super::*;
use crate::fixture::{DAY, Federation, domain, id, signing, uri};
use crate::issue::Validity;
use sealane_core::identity::ClusterId;

fn check(federation: &Federation, chain: &[CertificateDer<'_>]) -> Result<Verified, VerifyError> {
    verify_chain(&federation.bundle(), chain, federation.now, Usage::Client, Expiry::Strict)
}

#[test]
fn a_leaf_under_an_intermediate_is_verified_whole() {
    let federation = Federation::new();
    let (issued, key) = federation.leaf("agent/west", DAY);
    for usage in [Usage::Client, Usage::Server] {
        let verified =
            verify_chain(&federation.bundle(), &issued.chain, federation.now, usage, Expiry::Strict).unwrap();
        let expected = Svid {
            spiffe_id: id("agent/west"),
            cluster_id: Some(ClusterId(7)),
            not_before: verified.not_before,
            not_after: issued.not_after,
            serial: issued.serial.clone(),
            leaf_spki_hash: key.public().hash(),
        };
        assert_eq!(Svid::from(verified), expected);
    }
}

#[test]
fn the_root_need_not_be_presented() {
    let federation = Federation::new();
    let (issued, _) = federation.leaf("server/1", DAY);
    assert!(check(&federation, &issued.chain[..2]).is_ok());
    assert_eq!(check(&federation, &issued.chain[..1]), Err(VerifyError::UnknownIssuer));
    assert_eq!(check(&federation, &[]), Err(VerifyError::Empty));
}

#[test]
fn another_root_of_the_same_name_proves_nothing_even_with_the_true_root_appended() {
    let (federation, impostor) = (Federation::new(), Federation::new());
    let (issued, _) = impostor.leaf("server/1", DAY);
    assert_eq!(check(&federation, &issued.chain), Err(VerifyError::UnknownIssuer));
    let mut appended = issued.chain.clone();
    appended.push(federation.root.root_certificate().clone());
    assert_eq!(check(&federation, &appended), Err(VerifyError::UnknownIssuer));
    let mut swapped = issued.chain;
    swapped.truncate(1);
    swapped.extend(federation.issuing.chain().iter().cloned());
    assert_eq!(check(&federation, &swapped), Err(VerifyError::UnknownIssuer));
}

#[test]
fn a_leaf_has_one_uri_and_it_is_a_spiffe_id() {
    let federation = Federation::new();
    let refused = |change: fn(&mut rcgen::CertificateParams)| check(&federation, &federation.forged(change));
    assert!(refused(|_| ()).is_ok(), "the unchanged one is good");
    let two = refused(|p| p.subject_alt_names.push(uri("spiffe://fed.example/server/2")));
    assert_eq!(two, Err(SvidError::UriSans(2).into()));
    let also_https = refused(|p| p.subject_alt_names.push(uri("https://fed.example/")));
    assert_eq!(also_https, Err(SvidError::UriSans(2).into()));
    let none = refused(|p| p.subject_alt_names.clear());
    assert_eq!(none, Err(SvidError::UriSans(0).into()));
    let not_spiffe = refused(|p| p.subject_alt_names = vec![uri("https://fed.example/server/1")]);
    assert!(matches!(not_spiffe, Err(VerifyError::Svid(SvidError::NotSpiffe(_)))), "{not_spiffe:?}");
    let pathless = refused(|p| p.subject_alt_names = vec![uri("spiffe://fed.example")]);
    assert!(matches!(pathless, Err(VerifyError::Svid(SvidError::NotSpiffe(_)))), "{pathless:?}");
    let dns_too =
        refused(|p| p.subject_alt_names.push(rcgen::SanType::DnsName("a.example".try_into().unwrap())));
    assert!(dns_too.is_ok(), "names of other kinds do not matter");
}

#[test]
fn a_signing_certificate_is_no_leaf() {
    let federation = Federation::new();
    let refused = |change: fn(&mut rcgen::CertificateParams)| check(&federation, &federation.forged(change));
    assert_eq!(refused(signing), Err(SvidError::Signing.into()));
    let cert_sign = refused(|p| p.key_usages.push(rcgen::KeyUsagePurpose::KeyCertSign));
    assert_eq!(cert_sign, Err(SvidError::Signing.into()));
    assert_eq!(refused(|p| p.key_usages.clear()), Err(SvidError::NoDigitalSignature.into()));
    assert_eq!(check(&federation, federation.issuing.chain()), Err(SvidError::Signing.into()));
    assert_eq!(check(&federation, federation.root.chain()), Err(SvidError::Signing.into()));
}

#[test]
fn a_leaf_can_not_issue() {
    let federation = Federation::new();
    let (issued, key) = federation.leaf("server/1", DAY);
    let mut params = rcgen::CertificateParams::default();
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![uri("spiffe://fed.example/admin/root")];
    let issuer = rcgen::Issuer::from_ca_cert_der(&issued.chain[0], &key).unwrap();
    let child = params.signed_by(crate::key::PrivateKey::generate().unwrap().public(), &issuer).unwrap();
    let mut chain = vec![child.into()];
    chain.extend(issued.chain);
    assert!(matches!(check(&federation, &chain), Err(VerifyError::Path(_))));
}

#[test]
fn the_usage_is_checked() {
    let federation = Federation::new();
    let chain =
        federation.forged(|p| p.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]);
    assert_eq!(check(&federation, &chain), Err(VerifyError::WrongUsage));
    assert!(
        verify_chain(&federation.bundle(), &chain, federation.now, Usage::Server, Expiry::Strict).is_ok()
    );
}

#[test]
fn a_foreign_trust_domain_is_refused_whoever_signed() {
    let federation = Federation::new();
    let foreign = federation.forged(|p| p.subject_alt_names = vec![uri("spiffe://other.example/server/1")]);
    let found = TrustDomain::parse("other.example").unwrap();
    assert_eq!(
        check(&federation, &foreign),
        Err(VerifyError::WrongTrustDomain { expected: domain(), found: found.clone() })
    );
    // Nor does the root of our trust domain speak for another one.
    let theirs = Bundle::new(found, vec![Federation::new().root.root_certificate().clone()]).unwrap();
    let refused = verify_chain(&theirs, &foreign, federation.now, Usage::Client, Expiry::Strict);
    assert_eq!(refused, Err(VerifyError::UnknownIssuer));
}

#[test]
fn time_is_checked_and_grace_reaches_so_far() {
    let federation = Federation::new();
    let now = federation.now;
    let (issued, _) = federation.leaf("agent/west", DAY);
    let at =
        |time: Millis, expiry| verify_chain(&federation.bundle(), &issued.chain, time, Usage::Client, expiry);
    let grace = Expiry::Grace(30 * DAY);
    let end = issued.not_after;

    assert!(at(end, Expiry::Strict).is_ok());
    let late = end.plus(1000);
    assert_eq!(at(late, Expiry::Strict), Err(VerifyError::Expired { not_after: end, now: late }));
    assert!(at(late, grace).is_ok());
    assert!(at(late, grace).unwrap().is_expired(late));
    assert!(at(end.plus(clock::millis(30 * DAY)), grace).is_ok());
    let too_late = end.plus(clock::millis(30 * DAY) + 1000);
    assert_eq!(at(too_late, grace), Err(VerifyError::Expired { not_after: end, now: too_late }));
    let early = Millis(now.0 - 120_000);
    assert!(matches!(at(early, grace), Err(VerifyError::NotYetValid { now, .. }) if now == early));
}

#[test]
fn grace_accepts_no_other_fault() {
    let (federation, impostor) = (Federation::new(), Federation::new());
    let past = Validity {
        not_before: Millis(federation.now.0 - 1_000_000),
        not_after: Millis(federation.now.0 - 500_000),
    };
    let (issued, _) = impostor.leaf_within("agent/west", past);
    let refused = verify_chain(
        &federation.bundle(),
        &issued.chain,
        federation.now,
        Usage::Client,
        Expiry::Grace(30 * DAY),
    );
    assert_eq!(refused, Err(VerifyError::UnknownIssuer));
}

#[test]
fn size_is_bounded() {
    let federation = Federation::new();
    let (issued, _) = federation.leaf("server/1", DAY);
    let long: Vec<_> = issued.chain.iter().cycle().take(MAX_CHAIN + 1).cloned().collect();
    assert_eq!(check(&federation, &long), Err(VerifyError::TooLarge));
    let huge = vec![issued.chain[0].clone(), CertificateDer::from(vec![0; MAX_CERTIFICATE + 1])];
    assert_eq!(check(&federation, &huge), Err(VerifyError::TooLarge));
    let garbage = vec![CertificateDer::from(vec![1, 2, 3])];
    assert_eq!(check(&federation, &garbage), Err(SvidError::Malformed.into()));
}

#[test]
fn a_cluster_id_has_one_spelling() {
    let federation = Federation::new();
    let with = |text: &'static str| {
        check(
            &federation,
            &federation.forged(move |p| {
                p.distinguished_name.push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 5]), text);
            }),
        )
    };
    assert_eq!(with("7").unwrap().cluster_id, Some(ClusterId(7)));
    for bad in ["07", "+7", "x", "99999999999999999999"] {
        assert_eq!(with(bad), Err(SvidError::BadClusterId.into()), "{bad}");
    }
}
