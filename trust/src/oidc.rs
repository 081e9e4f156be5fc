//! Tokens of an issuer (JWT, RFC 7519), as Kubernetes projects them into pods: read, and verified by the issuer's keys.
//!
//! Law: nothing of a token is believed before its signature verifies by a key of the issuer that it is to come from, under
//! the algorithm of that key and not of the token's choice. Where keys come from is the caller's matter.

mod jwks;
mod token;

pub use jwks::{DiscoveryError, JwksError, MAX_DOCUMENT, jwks_uri, keys};
pub use token::{Claims, Expected, MAX_LIFE_MS, MAX_TOKEN, Token, TokenRefusal};

#[cfg(test)]
mod tests;
