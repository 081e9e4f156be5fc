//! Join tokens, and the first contact of someone who holds nothing but one.
//!
//! The text is `sealane-join-v1.` and base64url without padding of: kind (1 byte: 1 cluster, 2 server), federation id
//! (16), secret (32), hash of the root (32), count of endpoints (1), each endpoint as its length (1) and text, and the
//! first 4 bytes of the SHA-256 of all before, so that a token cut short in copying is called that.

use crate::bundle::{Bundle, RootHash};
use crate::svid;
use crate::tls::PeerPolicy;
use crate::verify::{Expiry, MAX_CHAIN, Usage, Verified, VerifyError, verify_chain};
use arc_swap::ArcSwapOption;
use data_encoding::BASE64URL_NOPAD;
use rustls_pki_types::CertificateDer;
use sealane_core::identity::{FederationId, Principal};
use sealane_core::time::Millis;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

const PREFIX: &str = "sealane-join-v1.";

/// The most endpoints in a token.
pub const MAX_ENDPOINTS: usize = 16;

/// The longest text that is looked at as a token.
const MAX_TEXT: usize = 8 * 1024;

/// What a token lets its holder become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A cluster's agent.
    Cluster,
    /// A federation server.
    Server,
}

/// A token that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin as a token does.
    #[error("not a join token: it must begin with sealane-join-v1.")]
    NotAToken,
    /// It is mistyped, cut short or has something after it.
    #[error("the join token is damaged: copy it again, whole")]
    Damaged,
    /// It has no endpoints, too many, or one that is not HOST:PORT of at most 255 bytes.
    #[error("a join token must have 1 to 16 endpoints, each HOST:PORT of at most 255 bytes")]
    BadEndpoints,
    /// No random bytes for the secret.
    #[error(transparent)]
    Random(#[from] crate::RandomError),
}

/// A join token: where the federation is, how to know it, and the secret that opens it once.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The federation.
    pub federation: FederationId,
    /// What its holder becomes.
    pub kind: TokenKind,
    /// The root that the federation's servers must prove to descend from.
    pub root_hash: RootHash,
    /// Where the servers listen, as HOST:PORT.
    pub endpoints: Vec<String>,
    secret: [u8; 32],
}

impl JoinToken {
    /// Makes a token with a new secret.
    ///
    /// # Errors
    /// When there are no endpoints, too many or bad ones, or the operating system gives no random bytes.
    pub fn new(
        federation: FederationId,
        kind: TokenKind,
        root_hash: RootHash,
        endpoints: Vec<String>,
    ) -> Result<Self, TokenError> {
        check_endpoints(&endpoints)?;
        Ok(JoinToken { federation, kind, root_hash, endpoints, secret: crate::random()? })
    }

    /// The secret, to be sent to a verified server and nowhere else.
    #[must_use]
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The SHA-256 of the secret: all that a server keeps of it.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        crate::sha256(&self.secret)
    }

    /// The token as text. It is a secret: for a file of mode 0600 or standard input, never for a command line.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_TEXT));
        bytes.push(match self.kind {
            TokenKind::Cluster => 1,
            TokenKind::Server => 2,
        });
        bytes.extend_from_slice(&self.federation.0);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&self.root_hash.0);
        bytes.push(u8::try_from(self.endpoints.len()).unwrap_or(u8::MAX));
        for endpoint in &self.endpoints {
            bytes.push(u8::try_from(endpoint.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(endpoint.as_bytes());
        }
        let check = crate::sha256(&bytes);
        bytes.extend_from_slice(&check[..4]);
        let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT));
        text.push_str(PREFIX);
        BASE64URL_NOPAD.encode_append(&bytes, &mut text);
        text
    }

    /// Parses a token; white space around it is passed over.
    ///
    /// # Errors
    /// When it is no token or not whole.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        if body.len() > MAX_TEXT {
            return Err(TokenError::Damaged);
        }
        let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| TokenError::Damaged)?;
        let bytes = Zeroizing::new(bytes);
        let (body, check) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
        if crate::sha256(body)[..4] != *check {
            return Err(TokenError::Damaged);
        }
        parse_body(body).ok_or(TokenError::Damaged)
    }
}

fn parse_body(bytes: &[u8]) -> Option<JoinToken> {
    let (kind, rest) = bytes.split_first()?;
    let kind = match kind {
        1 => TokenKind::Cluster,
        2 => TokenKind::Server,
        _ => return None,
    };
    let (federation, rest) = rest.split_first_chunk::<16>()?;
    let (secret, rest) = rest.split_first_chunk::<32>()?;
    let (root_hash, rest) = rest.split_first_chunk::<32>()?;
    let (count, mut rest) = rest.split_first()?;
    let mut endpoints = Vec::new();
    for _ in 0..*count {
        let (length, tail) = rest.split_first()?;
        let (endpoint, tail) = tail.split_at_checked(usize::from(*length))?;
        endpoints.push(std::str::from_utf8(endpoint).ok()?.to_owned());
        rest = tail;
    }
    check_endpoints(&endpoints).ok()?;
    rest.is_empty().then_some(JoinToken {
        federation: FederationId(*federation),
        kind,
        root_hash: RootHash(*root_hash),
        endpoints,
        secret: *secret,
    })
}

fn check_endpoints(endpoints: &[String]) -> Result<(), TokenError> {
    let good = |e: &String| {
        e.len() <= 255
            && e.bytes().all(|b| b.is_ascii_graphic())
            && e.rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
    };
    if endpoints.is_empty() || endpoints.len() > MAX_ENDPOINTS || !endpoints.iter().all(good) {
        return Err(TokenError::BadEndpoints);
    }
    Ok(())
}

impl FromStr for JoinToken {
    type Err = TokenError;
    fn from_str(s: &str) -> Result<Self, TokenError> {
        JoinToken::parse(s)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("federation", &self.federation)
            .field("kind", &self.kind)
            .field("root_hash", &self.root_hash)
            .field("endpoints", &self.endpoints)
            .field("secret", &"[secret]")
            .finish()
    }
}

impl Drop for JoinToken {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// Accepts a federation server by the hash of its root alone.
///
/// The certificate of the presented chain that has the pinned hash becomes the only anchor, for the trust domain that
/// it carries; the presented leaf must verify to it as a federation server. The root merely standing in the list
/// proves nothing. Servers send their root with the chain for this.
pub struct PinnedRoot {
    pin: RootHash,
    found: ArcSwapOption<Bundle>,
}

impl PinnedRoot {
    /// A policy for the pinned root.
    #[must_use]
    pub fn new(pin: RootHash) -> Self {
        PinnedRoot { pin, found: ArcSwapOption::empty() }
    }

    /// The federation's bundle, of the pinned root, once a server was verified by it.
    #[must_use]
    pub fn bundle(&self) -> Option<Bundle> {
        self.found.load_full().map(|b| Bundle::clone(&b))
    }

    fn pinned(&self, chain: &[CertificateDer<'_>]) -> Result<Bundle, VerifyError> {
        if chain.len() > MAX_CHAIN {
            return Err(VerifyError::TooLarge);
        }
        let root = chain.iter().find(|c| RootHash::of(c) == self.pin).ok_or(VerifyError::PinNotFound)?;
        let parsed = svid::x509(root).map_err(|_| VerifyError::BadPin)?;
        let domain = svid::signing_domain(&parsed).ok_or(VerifyError::BadPin)?;
        Bundle::new(domain, vec![root.clone().into_owned()]).map_err(|_| VerifyError::BadPin)
    }
}

impl fmt::Debug for PinnedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PinnedRoot").field(&self.pin).finish()
    }
}

impl PeerPolicy for PinnedRoot {
    fn check(
        &self,
        chain: &[CertificateDer<'_>],
        now: Millis,
        usage: Usage,
    ) -> Result<Verified, VerifyError> {
        let bundle = self.pinned(chain)?;
        let verified = verify_chain(&bundle, chain, now, usage, Expiry::Strict)?;
        match verified.spiffe_id.principal(bundle.trust_domain()) {
            Some(Principal::Server(_)) => {
                self.found.store(Some(Arc::new(bundle)));
                Ok(verified)
            }
            _ => Err(VerifyError::WrongIdentity(verified.spiffe_id.clone())),
        }
    }
}

#[cfg(test)]
mod tests;
