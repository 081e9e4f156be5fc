use super::*;
use crate::clock;
use crate::fixture::{DAY, Federation, uri};
use crate::svid::SvidError;

fn token() -> JoinToken {
    let endpoints = vec!["fed.example:7443".to_owned(), "[::1]:7443".to_owned()];
    JoinToken::new(FederationId([3; 16]), TokenKind::Cluster, RootHash([9; 32]), endpoints).unwrap()
}

#[test]
fn a_token_parses_as_it_prints_and_shows_no_secret() {
    let token = token();
    let text = token.to_text();
    assert!(text.starts_with("sealane-join-v1."));
    assert_eq!(JoinToken::parse(&format!(" {}\n", *text)).unwrap(), token);
    assert_eq!(token.secret_hash(), crate::sha256(token.secret()));
    let shown = format!("{token:?}");
    assert!(shown.contains("[secret]") && !shown.contains(&format!("{:?}", token.secret())), "{shown}");
}

#[test]
fn a_damaged_token_is_called_damaged() {
    let text = token().to_text();
    for cut in [text.len() - 1, text.len() - 8, 40, PREFIX.len()] {
        assert_eq!(JoinToken::parse(&text[..cut]), Err(TokenError::Damaged), "{cut}");
    }
    let mut mistyped = text.to_string().into_bytes();
    mistyped[60] = if mistyped[60] == b'A' { b'B' } else { b'A' };
    assert_eq!(JoinToken::parse(std::str::from_utf8(&mistyped).unwrap()), Err(TokenError::Damaged));
    assert_eq!(JoinToken::parse("sealane-join-v2.AAAA"), Err(TokenError::NotAToken));
    assert_eq!(JoinToken::parse(&format!("{PREFIX}{}", "A".repeat(MAX_TEXT + 1))), Err(TokenError::Damaged));
}

#[test]
fn endpoints_are_host_and_port() {
    let make = |endpoints: Vec<String>| {
        JoinToken::new(FederationId([3; 16]), TokenKind::Server, RootHash([9; 32]), endpoints).map(|_| ())
    };
    for bad in
        ["fed.example", ":1", "fed.example:0", "fed.example:x", "a b:1", &format!("{}:1", "a".repeat(255))]
    {
        assert_eq!(make(vec![bad.to_owned()]), Err(TokenError::BadEndpoints), "{bad}");
    }
    assert_eq!(make(vec![]), Err(TokenError::BadEndpoints));
    assert_eq!(make(vec!["a:1".to_owned(); 17]), Err(TokenError::BadEndpoints));
    assert_eq!(make(vec!["a:1".to_owned(); 16]), Ok(()));
}

fn pinned(federation: &Federation) -> PinnedRoot {
    PinnedRoot::new(RootHash::of(federation.root.root_certificate()))
}

#[test]
fn a_server_under_the_pinned_root_is_accepted_and_gives_the_bundle() {
    let federation = Federation::new();
    let policy = pinned(&federation);
    let (issued, _) = federation.leaf("server/1", DAY);
    assert_eq!(policy.bundle(), None);
    assert!(policy.check(&issued.chain, clock::now(), Usage::Server).is_ok());
    assert_eq!(policy.bundle(), Some(federation.bundle()));
}

#[test]
fn the_true_root_in_the_list_of_an_impostor_proves_nothing() {
    let (federation, impostor) = (Federation::new(), Federation::new());
    let (issued, _) = impostor.leaf("server/1", DAY);
    let policy = pinned(&federation);
    assert_eq!(policy.check(&issued.chain, clock::now(), Usage::Server), Err(VerifyError::PinNotFound));
    let mut appended = issued.chain;
    appended.push(federation.root.root_certificate().clone());
    assert_eq!(policy.check(&appended, clock::now(), Usage::Server), Err(VerifyError::UnknownIssuer));
    assert_eq!(policy.bundle(), None);
}

#[test]
fn only_a_server_is_accepted() {
    let federation = Federation::new();
    let policy = pinned(&federation);
    for path in ["agent/west", "admin/root", "server/x"] {
        let (issued, _) = federation.leaf(path, DAY);
        let refused = policy.check(&issued.chain, clock::now(), Usage::Server);
        assert!(matches!(refused, Err(VerifyError::WrongIdentity(_))), "{path}: {refused:?}");
    }
}

#[test]
fn the_pinned_root_is_no_leaf_and_speaks_for_its_own_domain_only() {
    let federation = Federation::new();
    let policy = pinned(&federation);
    let refused = policy.check(federation.root.chain(), clock::now(), Usage::Server);
    assert_eq!(refused, Err(SvidError::Signing.into()));
    let foreign = federation.forged(|p| p.subject_alt_names = vec![uri("spiffe://other.example/server/1")]);
    let refused = policy.check(&foreign, clock::now(), Usage::Server);
    assert!(matches!(refused, Err(VerifyError::WrongTrustDomain { .. })), "{refused:?}");
    let (issued, _) = federation.leaf("server/1", DAY);
    let pins_a_leaf = PinnedRoot::new(RootHash::of(&issued.chain[0]));
    assert_eq!(pins_a_leaf.check(&issued.chain, clock::now(), Usage::Server), Err(VerifyError::BadPin));
}
