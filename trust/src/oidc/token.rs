//! One token.

use super::jwks::name;
use data_encoding::BASE64URL_NOPAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use sealane_core::state::{IssuerKey, SignatureAlgorithm, TOKEN_SKEW_MS};
use sealane_core::time::Millis;
use serde::Deserialize;
use std::fmt;

/// The longest token: Kubernetes' have some 1,200 bytes.
pub const MAX_TOKEN: usize = 8 * 1024;
/// The longest life that a token may be given. The kubelet's last 10 minutes to a day.
pub const MAX_LIFE_MS: u64 = 24 * 3_600_000;

/// Why a token is refused. Nothing of a token that is not verified is in here but what it says of its own kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// It is too large.
    #[error("the token has {0} bytes, and at most {MAX_TOKEN} are looked at")]
    TooLarge(usize),
    /// It is no token.
    #[error("this is no token of an issuer (a JWT in three parts): {0}")]
    Malformed(&'static str),
    /// It asks for another algorithm.
    #[error("the token is signed by {0:?}: RS256, ES256 and ES384 are taken, and nothing else")]
    Algorithm(String),
    /// No key of the issuer is meant.
    #[error("the token is signed by the key {0}, which is none of the issuer's")]
    UnknownKey(String),
    /// The signature is not that of the key.
    #[error("the token's signature does not verify by the issuer's key")]
    BadSignature,
    /// It is of another issuer.
    #[error("the token is of issuer {0:?}, which is not the one that the cluster was added with")]
    Issuer(String),
    /// It speaks for somebody else.
    #[error("the token speaks for {found:?}, and the cluster joins as {wanted:?}")]
    Subject {
        /// For whom.
        found: String,
        /// For whom it should.
        wanted: String,
    },
    /// It is for somebody else, too.
    #[error("the token is for the audience {found:?}, and must be for the federation's id {wanted} alone")]
    Audience {
        /// For whom.
        found: Vec<String>,
        /// For whom it should be.
        wanted: String,
    },
    /// It ran out.
    #[error("the token ran out {0} s ago")]
    Expired(u64),
    /// It is not valid yet.
    #[error("the token is valid in {0} s only: are the clocks right?")]
    Early(u64),
    /// It lives too long.
    #[error("the token is given {0} s to live, and at most {max} are taken: it should be one that is renewed", max = MAX_LIFE_MS / 1000)]
    LongLived(u64),
}

/// What is expected of a token.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Its issuer; `None` where whoever holds the keys is believed.
    pub issuer: Option<&'a str>,
    /// Whom it speaks for.
    pub subject: &'a str,
    /// Whom alone it is for.
    pub audience: &'a str,
    /// What time it is.
    pub now: Millis,
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// When it runs out.
    pub expires: Millis,
    /// Its own name, for logs.
    pub id: Option<String>,
}

/// A token that was taken apart, and of which nothing is believed yet.
#[derive(Clone)]
pub struct Token<'a> {
    /// What is signed: header and payload as they came.
    signed: &'a str,
    payload: Payload,
    signature: Vec<u8>,
    algorithm: SignatureAlgorithm,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Deserialize)]
struct Payload {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    iat: u64,
    nbf: Option<u64>,
    jti: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("algorithm", &self.algorithm)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl<'a> Token<'a> {
    /// Takes a token apart; white space around it is passed over.
    ///
    /// # Errors
    /// When it is none, or of an algorithm that is not taken.
    pub fn parse(text: &'a str) -> Result<Self, TokenRefusal> {
        let text = text.trim();
        if text.len() > MAX_TOKEN {
            return Err(TokenRefusal::TooLarge(text.len()));
        }
        let parts = || {
            let (signed, signature) = text.rsplit_once('.')?;
            let (header, payload) = signed.split_once('.')?;
            (!payload.contains('.')).then_some((signed, header, payload, signature))
        };
        let (signed, header, payload, signature) =
            parts().ok_or(TokenRefusal::Malformed("it has not three parts"))?;
        let header: Header = json(header, "its header is not understood")?;
        if header.crit.is_some() {
            return Err(TokenRefusal::Malformed("it has critical extensions"));
        }
        let algorithm = algorithm(&header.alg)?;
        let payload = json(payload, "its claims (iss, sub, aud, exp and iat are needed) are not understood")?;
        let signature = decode(signature, "its signature is not base64url")?;
        Ok(Token { signed, payload, signature, algorithm, kid: header.kid })
    }

    /// The name of the key that it says it is signed by.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether one of these keys may have signed it, by name and kind.
    #[must_use]
    pub fn is_of(&self, keys: &[IssuerKey]) -> bool {
        self.candidates(keys).next().is_some()
    }

    /// The SHA-256 of what was signed: the same for whatever else is made of its signature.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        crate::sha256(self.signed.as_bytes())
    }

    /// Those of its name, and those without any.
    fn candidates<'k>(&self, keys: &'k [IssuerKey]) -> impl Iterator<Item = &'k IssuerKey> {
        let named = move |key: &&IssuerKey| match (&self.kid, &key.kid) {
            (Some(wanted), Some(kid)) => wanted == kid,
            _ => true,
        };
        keys.iter().filter(|key| key.algorithm == self.algorithm).filter(named)
    }

    /// Verifies the signature by the issuer's keys, and then what it says.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn verify(&self, keys: &[IssuerKey], expected: &Expected<'_>) -> Result<Claims, TokenRefusal> {
        if !self.is_of(keys) {
            let kid = self.kid.as_deref().unwrap_or("without a name").chars().take(80).collect();
            return Err(TokenRefusal::UnknownKey(kid));
        }
        if !self.candidates(keys).any(|key| self.is_signed_by(key)) {
            return Err(TokenRefusal::BadSignature);
        }
        self.payload.check(expected)
    }

    fn is_signed_by(&self, key: &IssuerKey) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match key.algorithm {
            SignatureAlgorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            SignatureAlgorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            SignatureAlgorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
        };
        UnparsedPublicKey::new(algorithm, &key.key).verify(self.signed.as_bytes(), &self.signature).is_ok()
    }
}

impl Payload {
    fn check(&self, expected: &Expected<'_>) -> Result<Claims, TokenRefusal> {
        if expected.issuer.is_some_and(|issuer| issuer != self.iss) {
            return Err(TokenRefusal::Issuer(shown(&self.iss)));
        }
        if self.sub != expected.subject {
            let (found, wanted) = (shown(&self.sub), expected.subject.to_owned());
            return Err(TokenRefusal::Subject { found, wanted });
        }
        let audience = match &self.aud {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Several(several) => several,
        };
        if audience != [expected.audience] {
            let found = audience.iter().take(8).map(|one| shown(one)).collect();
            return Err(TokenRefusal::Audience { found, wanted: expected.audience.to_owned() });
        }
        self.check_times(expected.now)?;
        Ok(Claims { expires: millis(self.exp), id: self.jti.as_deref().map(shown) })
    }

    fn check_times(&self, now: Millis) -> Result<(), TokenRefusal> {
        let (from, end) = (self.nbf.unwrap_or(self.iat).max(self.iat), millis(self.exp));
        if end.plus(TOKEN_SKEW_MS) <= now {
            return Err(TokenRefusal::Expired(now.since(end) / 1000));
        }
        if millis(from) > now.plus(TOKEN_SKEW_MS) {
            return Err(TokenRefusal::Early(millis(from).since(now) / 1000));
        }
        let life = self.exp.saturating_sub(self.iat);
        if life.saturating_mul(1000) > MAX_LIFE_MS {
            return Err(TokenRefusal::LongLived(life));
        }
        Ok(())
    }
}

fn algorithm(text: &str) -> Result<SignatureAlgorithm, TokenRefusal> {
    use SignatureAlgorithm::{Es256, Es384, Rs256};
    let found = [Rs256, Es256, Es384].into_iter().find(|a| name(*a) == text);
    found.ok_or_else(|| TokenRefusal::Algorithm(text.chars().take(20).collect()))
}

fn millis(seconds: u64) -> Millis {
    Millis(seconds.saturating_mul(1000))
}

fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

fn decode(part: &str, rule: &'static str) -> Result<Vec<u8>, TokenRefusal> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| TokenRefusal::Malformed(rule))
}

fn json<T: serde::de::DeserializeOwned>(part: &str, rule: &'static str) -> Result<T, TokenRefusal> {
    serde_json::from_slice(&decode(part, rule)?).map_err(|_| TokenRefusal::Malformed(rule))
}
