//! The documents of an issuer: its keys (RFC 7517), and where they are (OpenID Connect Discovery 1.0).

use data_encoding::BASE64URL_NOPAD;
use sealane_core::state::{IssuerKey, MAX_KEYS, MAX_KID, SignatureAlgorithm};
use serde::Deserialize;

/// The most bytes of a document.
pub const MAX_DOCUMENT: usize = 64 * 1024;
/// The most bytes of a URL.
const MAX_URL: usize = 1_024;
/// RSA keys have 2048 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1_024;

/// A set of keys that can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is too large.
    #[error("a set of keys has at most {MAX_DOCUMENT} bytes")]
    TooLarge,
    /// It is something else.
    #[error("this is no set of keys (a JSON object with `keys`, as GET /openid/v1/jwks gives it): {0}")]
    Malformed(String),
    /// A key says one thing and is another.
    #[error("key {place} of the set can not be used: {why}")]
    BadKey {
        /// Its place, from 0.
        place: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nothing in it can be used.
    #[error(
        "no key of the set can be used: RSA of 2048 to 8192 bits (RS256) and ECDSA by P-256 and P-384 can"
    )]
    None,
    /// There are more than we keep.
    #[error("a set of {0} keys: at most {MAX_KEYS} are kept")]
    TooMany(usize),
}

/// A discovery document that can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// It is too large or something else.
    #[error("this is no discovery document (a JSON object with `issuer` and `jwks_uri`): {0}")]
    Malformed(String),
    /// It is of somebody else.
    #[error("the discovery document is of issuer {0:?}")]
    OtherIssuer(String),
    /// Where the keys are is not to be asked.
    #[error("the discovery document names no https URL for its keys, but {0:?}")]
    BadUri(String),
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a set that can be used. Those of other kinds, and those for encryption, are passed over.
///
/// # Errors
/// When it is no set of keys, a key contradicts itself, or none is left.
pub fn keys(document: &[u8]) -> Result<Vec<IssuerKey>, JwksError> {
    if document.len() > MAX_DOCUMENT {
        return Err(JwksError::TooLarge);
    }
    let set: Jwks = serde_json::from_slice(document).map_err(|e| JwksError::Malformed(e.to_string()))?;
    let mut keys = Vec::new();
    for (place, jwk) in set.keys.into_iter().enumerate() {
        keys.extend(key(jwk).map_err(|why| JwksError::BadKey { place, why })?);
    }
    match keys.len() {
        0 => Err(JwksError::None),
        count if count > MAX_KEYS => Err(JwksError::TooMany(count)),
        _ => Ok(keys),
    }
}

fn key(jwk: Jwk) -> Result<Option<IssuerKey>, &'static str> {
    use SignatureAlgorithm::{Es256, Es384, Rs256};
    if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return Ok(None);
    }
    let algorithm = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => Rs256,
        ("EC", Some("P-256")) => Es256,
        ("EC", Some("P-384")) => Es384,
        _ => return Ok(None),
    };
    // An RSA key for another algorithm (PS256, RS512) is no key for ours.
    if jwk.alg.as_deref().is_some_and(|alg| alg != name(algorithm)) {
        return Ok(None);
    }
    if jwk.kid.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > MAX_KID) {
        return Err("its kid is empty or too long");
    }
    let key = match algorithm {
        Rs256 => rsa(jwk.n.as_deref(), jwk.e.as_deref())?,
        Es256 => point(jwk.x.as_deref(), jwk.y.as_deref(), 32)?,
        Es384 => point(jwk.x.as_deref(), jwk.y.as_deref(), 48)?,
    };
    Ok(Some(IssuerKey { kid: jwk.kid, algorithm, key }))
}

/// The name of an algorithm in a token's header.
pub(super) fn name(algorithm: SignatureAlgorithm) -> &'static str {
    match algorithm {
        SignatureAlgorithm::Rs256 => "RS256",
        SignatureAlgorithm::Es256 => "ES256",
        SignatureAlgorithm::Es384 => "ES384",
    }
}

fn number(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let text = text.ok_or("a number of it is missing")?;
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| "a number of it is not base64url")
}

fn point(x: Option<&str>, y: Option<&str>, length: usize) -> Result<Vec<u8>, &'static str> {
    let (x, y) = (number(x)?, number(y)?);
    if x.len() != length || y.len() != length {
        return Err("its coordinates have not the length of its curve");
    }
    Ok([&[4], x.as_slice(), y.as_slice()].concat())
}

/// `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }`
fn rsa(n: Option<&str>, e: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let (n, e) = (number(n)?, number(e)?);
    let strip =
        |bytes: &[u8]| bytes.iter().position(|b| *b != 0).map_or(Vec::new(), |at| bytes[at..].to_vec());
    let (n, e) = (strip(&n), strip(&e));
    if !MODULUS.contains(&n.len()) || n.last().is_none_or(|b| b % 2 == 0) {
        return Err("its modulus has not 2048 to 8192 bits");
    }
    if e.is_empty() || e.len() > 4 || e.last().is_none_or(|b| b % 2 == 0) || e == [1] {
        return Err("its exponent is not an odd number from 3 to 2^32");
    }
    Ok(der(0x30, &[der_integer(&n), der_integer(&e)].concat()))
}

fn der_integer(magnitude: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if magnitude.first().is_some_and(|b| *b >= 0x80) { &[0] } else { &[] };
    der(2, &[sign, magnitude].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().position(|b| *b != 0).unwrap_or(length.len() - 1)..];
    // One byte below 128; else how many bytes follow, which are 2 at most for what is admitted here.
    let prefix = if content.len() < 0x80 {
        vec![tag]
    } else {
        vec![tag, 0x80 | u8::try_from(length.len()).unwrap_or(8)]
    };
    [&prefix, length, content].concat()
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Where the keys of an issuer are, as its discovery document says.
///
/// # Errors
/// When it is no such document, of another issuer, or names something else than an https URL.
pub fn jwks_uri(document: &[u8], issuer: &str) -> Result<String, DiscoveryError> {
    if document.len() > MAX_DOCUMENT {
        return Err(DiscoveryError::Malformed(format!("it has more than {MAX_DOCUMENT} bytes")));
    }
    let found: Discovery =
        serde_json::from_slice(document).map_err(|e| DiscoveryError::Malformed(e.to_string()))?;
    if found.issuer != issuer {
        return Err(DiscoveryError::OtherIssuer(found.issuer.chars().take(200).collect()));
    }
    let uri = found.jwks_uri;
    if !uri.starts_with("https://") || uri.len() > MAX_URL || !uri.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(DiscoveryError::BadUri(uri.chars().take(200).collect()));
    }
    Ok(uri)
}
