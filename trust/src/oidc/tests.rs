use super::*;
use data_encoding::BASE64URL_NOPAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};
use sealane_core::state::{IssuerKey, SignatureAlgorithm};
use sealane_core::time::Millis;
use serde_json::{Value, json};

/// A key and a token that was signed by it once; nobody kept the other half.
const MODULUS: &str = "s7jrTrCymvmJUolnqaIOCGtbaF80OIh4JTKtJh_eXlI-l3xbXsmtDyhRYrH_vYIcDysjNF6x2T_mtFylelcMOYmAmQqvEuzK\
     CnVOY612EWPWzOxopGxyJUPzbG-FbicXcuopFT9j-TeA7gjRBgYHc72AEqhJhJcXInPsgpmotL9KNnXm-BMuiXpCHLL-S3yL\
     eJ_rEsR3dEZpGOZZjz2BrroMg_xW21a87_FIQSDqBvUEmptenIBYcDdtm_mcAFUAHIm31qtdYaEUpf5fLiIeYV-ei1yp5I3e\
     B-LNsHMUUEbAWpiwkVK4KZ-xNBCJYczcg6VJL6-5hW10uBnY7k-MtQ";
const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYS0xIn0.eyJhdWQiOlsiMDcwNzA3MDcwNzA3MDcwNzA3MDcwNzA3MDcwNzA3MDci\
     XSwiZXhwIjoxMDAwNjAwLCJpYXQiOjEwMDAwMDAsImlzcyI6Imh0dHBzOi8va3ViZXJuZXRlcy5kZWZhdWx0LnN2YyIsImp0\
     aSI6IjdjMWYiLCJuYmYiOjEwMDAwMDAsInN1YiI6InN5c3RlbTpzZXJ2aWNlYWNjb3VudDpzZWFsYW5lLXN5c3RlbTpzZWFs\
     YW5lLWFnZW50In0.i0AsvENB_2wdU32LuCyWTCcnrQACS8cnPSGLBuBB87zP9uLwIV25GpG38xYgSH9AcX5E1F3zxGMiBKpJ\
     8mrKF2WFjmJjM79SHUoFcmrbKkGRIiF30iZG7Toj92nZTVhmL_OZBK5P-R22tQD6bl4IVKQXgV5Hk75uhRuUzRE_esiHbwaz\
     6WV-Y1NVuomuh-79AzoIKJJalRqEV4jv900DxoXmTtY5E6pUGHDWxD_B_NyhP1oZiqWO6xMtb3roHdqpkT5q_t7sGRUqv_de\
     Duskw5W82mlZVlaEezLE15e3ugdk3GSroDGJ5Y-bHRZ8mpJL91SmVQHk-LGia7nQub6vKg";

const ISSUER: &str = "https://kubernetes.default.svc";
const SUBJECT: &str = "system:serviceaccount:sealane-system:sealane-agent";
const AUDIENCE: &str = "07070707070707070707070707070707";
/// When the tokens here are made, in seconds.
const MADE: u64 = 1_000_000;

fn expected(now_s: u64) -> Expected<'static> {
    Expected { issuer: Some(ISSUER), subject: SUBJECT, audience: AUDIENCE, now: Millis(now_s * 1000) }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "exp": MADE + 600, "iat": MADE, "nbf": MADE, "jti": "a"})
}

/// An issuer with one key.
struct Signer {
    pair: EcdsaKeyPair,
    algorithm: SignatureAlgorithm,
    kid: Option<&'static str>,
}

impl Signer {
    fn new(algorithm: SignatureAlgorithm, kid: Option<&'static str>) -> Self {
        let by = match algorithm {
            SignatureAlgorithm::Es384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &ECDSA_P256_SHA256_FIXED_SIGNING,
        };
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(by, &random).unwrap();
        Signer { pair: EcdsaKeyPair::from_pkcs8(by, key.as_ref(), &random).unwrap(), algorithm, kid }
    }

    fn p256() -> Self {
        Signer::new(SignatureAlgorithm::Es256, Some("k1"))
    }

    fn jwk(&self) -> Value {
        let point = &self.pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let (curve, alg) = match self.algorithm {
            SignatureAlgorithm::Es384 => ("P-384", "ES384"),
            _ => ("P-256", "ES256"),
        };
        json!({"kty": "EC", "use": "sig", "alg": alg, "crv": curve, "kid": self.kid,
            "x": BASE64URL_NOPAD.encode(x), "y": BASE64URL_NOPAD.encode(y)})
    }

    fn keys(&self) -> Vec<IssuerKey> {
        keys(json!({"keys": [self.jwk()]}).to_string().as_bytes()).unwrap()
    }

    fn sign(&self, claims: &Value) -> String {
        let alg = if self.algorithm == SignatureAlgorithm::Es384 { "ES384" } else { "ES256" };
        self.sign_as(&json!({"alg": alg, "kid": self.kid, "typ": "JWT"}), claims)
    }

    fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

fn verify(token: &str, keys: &[IssuerKey], now_s: u64) -> Result<Claims, TokenRefusal> {
    Token::parse(token)?.verify(keys, &expected(now_s))
}

/// The claims but for some.
fn with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

#[test]
fn a_token_of_each_algorithm_verifies_by_its_issuers_key() {
    let good = |id: &str| Ok(Claims { expires: Millis((MADE + 600) * 1000), id: Some(id.to_owned()) });
    for algorithm in [SignatureAlgorithm::Es256, SignatureAlgorithm::Es384] {
        let signer = Signer::new(algorithm, Some("k1"));
        assert_eq!(verify(&signer.sign(&claims()), &signer.keys(), MADE), good("a"));
    }
    let rsa = json!({"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa-1", "n": MODULUS, "e": "AQAB"}]});
    let rsa = keys(rsa.to_string().as_bytes()).unwrap();
    assert_eq!(verify(RSA_TOKEN, &rsa, MADE), good("7c1f"));
    assert_eq!(verify(&format!(" {RSA_TOKEN}\n"), &rsa, MADE), good("7c1f"));
    assert_eq!(
        verify(RSA_TOKEN, &Signer::p256().keys(), MADE),
        Err(TokenRefusal::UnknownKey("rsa-1".to_owned()))
    );
}

#[test]
fn the_key_is_chosen_by_its_name_and_kind_and_never_by_the_token_alone() {
    let (one, two) = (Signer::p256(), Signer::new(SignatureAlgorithm::Es256, Some("k2")));
    let both: Vec<IssuerKey> = one.keys().into_iter().chain(two.keys()).collect();
    let by = |header: Value, signer: &Signer| verify(&signer.sign_as(&header, &claims()), &both, MADE);
    assert!(by(json!({"alg": "ES256", "kid": "k2"}), &two).is_ok());
    assert_eq!(by(json!({"alg": "ES256", "kid": "k1"}), &two), Err(TokenRefusal::BadSignature));
    assert_eq!(
        by(json!({"alg": "ES256", "kid": "k3"}), &two),
        Err(TokenRefusal::UnknownKey("k3".to_owned()))
    );
    // Where either side names none, all of the kind are tried.
    assert!(by(json!({"alg": "ES256"}), &two).is_ok());
    let unnamed = Signer::new(SignatureAlgorithm::Es256, None);
    assert!(
        verify(&unnamed.sign_as(&json!({"alg": "ES256", "kid": "k9"}), &claims()), &unnamed.keys(), MADE)
            .is_ok()
    );
    // A key is of one algorithm, whatever a token asks for.
    for alg in ["none", "None", "HS256", "RS512", "PS256", "ES512", ""] {
        let said = Err(TokenRefusal::Algorithm(alg.to_owned()));
        assert_eq!(by(json!({"alg": alg, "kid": "k1"}), &one), said);
    }
    assert_eq!(
        by(json!({"alg": "RS256", "kid": "k1"}), &one),
        Err(TokenRefusal::UnknownKey("k1".to_owned()))
    );
    assert_eq!(
        by(json!({"alg": "ES384", "kid": "k1"}), &one),
        Err(TokenRefusal::UnknownKey("k1".to_owned()))
    );
}

#[test]
fn what_a_token_says_must_be_exactly_what_is_expected() {
    let signer = Signer::p256();
    let keys = signer.keys();
    let said = |changes: &Value, now| verify(&signer.sign(&with(changes)), &keys, now).unwrap_err();
    assert_eq!(
        said(&json!({"iss": "https://a.example"}), MADE),
        TokenRefusal::Issuer("https://a.example".to_owned())
    );
    assert_eq!(said(&json!({"iss": format!("{ISSUER}/")}), MADE), TokenRefusal::Issuer(format!("{ISSUER}/")));
    let other = "system:serviceaccount:shop:cart".to_owned();
    let subject = TokenRefusal::Subject { found: other.clone(), wanted: SUBJECT.to_owned() };
    assert_eq!(said(&json!({"sub": other}), MADE), subject);
    let audience = |found: &[&str]| TokenRefusal::Audience {
        found: found.iter().map(|s| (*s).to_owned()).collect(),
        wanted: AUDIENCE.to_owned(),
    };
    assert_eq!(said(&json!({"aud": "other"}), MADE), audience(&["other"]));
    assert_eq!(said(&json!({"aud": []}), MADE), audience(&[]));
    // Whoever else it is for could show it here.
    assert_eq!(said(&json!({"aud": [AUDIENCE, "other"]}), MADE), audience(&[AUDIENCE, "other"]));
    assert!(verify(&signer.sign(&with(&json!({"aud": AUDIENCE}))), &keys, MADE).is_ok());
    let whoever = Expected { issuer: None, ..expected(MADE) };
    let foreign = signer.sign(&with(&json!({"iss": "https://a.example"})));
    assert!(Token::parse(&foreign).unwrap().verify(&keys, &whoever).is_ok());
}

#[test]
fn a_token_is_good_for_its_time_and_a_minute_of_wrong_clocks() {
    let signer = Signer::p256();
    let keys = signer.keys();
    let at = |changes: &Value, now| verify(&signer.sign(&with(changes)), &keys, now);
    let none = json!({});
    for good in [MADE - 60, MADE, MADE + 600, MADE + 659] {
        assert!(at(&none, good).is_ok(), "{good}");
    }
    assert_eq!(at(&none, MADE + 660), Err(TokenRefusal::Expired(60)));
    assert_eq!(at(&none, MADE - 61), Err(TokenRefusal::Early(61)));
    assert_eq!(at(&json!({"nbf": MADE + 100}), MADE), Err(TokenRefusal::Early(100)));
    assert_eq!(at(&json!({"nbf": null}), MADE - 61), Err(TokenRefusal::Early(61)));
    assert!(at(&json!({"exp": MADE + 86_400}), MADE).is_ok());
    assert_eq!(at(&json!({"exp": MADE + 86_401}), MADE), Err(TokenRefusal::LongLived(86_401)));
    assert_eq!(at(&json!({"exp": u64::MAX}), MADE), Err(TokenRefusal::LongLived(u64::MAX - MADE)));
}

#[test]
fn what_is_no_token_is_refused_and_nothing_of_it_is_shown() {
    let signer = Signer::p256();
    let good = signer.sign(&claims());
    assert!(Token::parse(&good).is_ok());
    for bad in ["", "a", "a.b", "a.b.c", "..", &format!("{good}.x"), &good.replace('.', "..")] {
        assert!(matches!(Token::parse(bad), Err(TokenRefusal::Malformed(_))), "{bad}");
    }
    assert!(matches!(Token::parse(&"a".repeat(MAX_TOKEN + 1)), Err(TokenRefusal::TooLarge(_))));
    for missing in ["iss", "sub", "aud", "exp", "iat"] {
        let token = signer.sign(&with(&json!({missing: null})));
        assert!(matches!(Token::parse(&token), Err(TokenRefusal::Malformed(_))), "{missing}");
    }
    let critical = signer.sign_as(&json!({"alg": "ES256", "crit": ["b64"], "b64": false}), &claims());
    assert!(matches!(Token::parse(&critical), Err(TokenRefusal::Malformed(_))));
    let damaged = format!("{}A{}", &good[..good.len() - 5], &good[good.len() - 4..]);
    if damaged != good {
        assert_eq!(verify(&damaged, &signer.keys(), MADE), Err(TokenRefusal::BadSignature));
    }
    assert!(!format!("{:?}", Token::parse(&good).unwrap()).contains(&good[..20]));
}

#[test]
fn the_same_claims_are_the_same_token_whatever_their_signature() {
    let signer = Signer::p256();
    let (one, two) = (signer.sign(&claims()), signer.sign(&claims()));
    assert_ne!(one, two);
    assert_eq!(Token::parse(&one).unwrap().hash(), Token::parse(&two).unwrap().hash());
}

#[test]
fn a_set_of_keys_is_taken_whole_or_refused() {
    let set = |keys: Value| keys_of(&json!({"keys": keys}));
    let (one, wide) = (Signer::p256(), Signer::new(SignatureAlgorithm::Es384, Some("k3")));
    let rsa = json!({"kty": "RSA", "kid": "r", "n": MODULUS, "e": "AQAB"});
    let foreign = json!([
        {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}, {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        {"kty": "RSA", "use": "enc", "n": MODULUS, "e": "AQAB"}, {"kty": "RSA", "alg": "PS256", "n": MODULUS, "e": "AQAB"},
        one.jwk(), wide.jwk(), rsa
    ]);
    let taken = set(foreign).unwrap();
    let kinds: Vec<_> = taken.iter().map(|k| (k.kid.as_deref(), k.algorithm, k.key.len())).collect();
    use SignatureAlgorithm::{Es256, Es384, Rs256};
    assert_eq!(kinds, [(Some("k1"), Es256, 65), (Some("k3"), Es384, 97), (Some("r"), Rs256, 270)]);
    assert_eq!(set(json!([])), Err(JwksError::None));
    assert_eq!(set(json!([{"kty": "oct", "k": "AA"}])), Err(JwksError::None));
    assert_eq!(set(json!(vec![one.jwk(); 33])), Err(JwksError::TooMany(33)));
    for bad in [
        json!({"kty": "RSA", "e": "AQAB"}),
        json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "RSA", "n": MODULUS, "e": "AQ"}),
        json!({"kty": "RSA", "n": MODULUS, "e": "AQAA"}),
        json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
        json!({"kty": "EC", "crv": "P-256", "x": "!", "y": "AA"}),
        json!({"kty": "RSA", "kid": "", "n": MODULUS, "e": "AQAB"}),
    ] {
        assert!(matches!(set(json!([one.jwk(), bad])), Err(JwksError::BadKey { place: 1, .. })), "{bad}");
    }
    assert!(matches!(keys(b"{}"), Err(JwksError::Malformed(_))));
    assert_eq!(keys(&vec![b' '; MAX_DOCUMENT + 1]), Err(JwksError::TooLarge));
}

fn keys_of(document: &Value) -> Result<Vec<IssuerKey>, JwksError> {
    keys(document.to_string().as_bytes())
}

#[test]
fn a_discovery_document_is_of_its_issuer_and_names_https() {
    let of = |document: Value| jwks_uri(document.to_string().as_bytes(), ISSUER);
    let uri = "https://10.0.0.1:6443/openid/v1/jwks";
    assert_eq!(of(json!({"issuer": ISSUER, "jwks_uri": uri, "x": 1})), Ok(uri.to_owned()));
    assert_eq!(
        of(json!({"issuer": "https://b.example", "jwks_uri": uri})),
        Err(DiscoveryError::OtherIssuer("https://b.example".to_owned()))
    );
    for bad in ["http://10.0.0.1/jwks", "file:///etc/passwd", "https://a b"] {
        assert_eq!(
            of(json!({"issuer": ISSUER, "jwks_uri": bad})),
            Err(DiscoveryError::BadUri(bad.to_owned()))
        );
    }
    assert!(matches!(of(json!({"issuer": ISSUER})), Err(DiscoveryError::Malformed(_))));
    assert!(matches!(jwks_uri(&vec![b' '; MAX_DOCUMENT + 1], ISSUER), Err(DiscoveryError::Malformed(_))));
}
