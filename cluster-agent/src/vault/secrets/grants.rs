//! Workload tokens in the Secret of the agent's identity: made by one replica, taken by any, by one of them once.
//!
//! No secret of a token is in it, only its hash. What expired goes when the next one is made.

use super::{Contents, IDENTITY, SecretError, Secrets, damaged};
use crate::identity::{Grant, Redeemed};
use k8s_openapi::ByteString;
use sealane_core::time::Millis;

const PREFIX: &str = "token.";
/// How many tokens may wait to be used: a Secret has a mebibyte, and one of them some hundred bytes.
const MOST: usize = 512;

impl Secrets {
    /// Keeps a token's half.
    ///
    /// # Errors
    /// When it can not be written, or too many wait.
    pub(crate) async fn grant(&self, secret: &[u8], grant: &Grant, now: Millis) -> Result<(), SecretError> {
        let text = grant.to_json().map_err(|e| damaged(IDENTITY, &e.to_string()))?;
        self.fill(IDENTITY, "Opaque", |contents| {
            add(contents, &Grant::name(secret), &text, now)?;
            Ok::<_, SecretError>(true)
        })
        .await?;
        Ok(())
    }

    /// Takes a token for a key. Of two replicas that do so at the same time one reads what the other wrote.
    ///
    /// # Errors
    /// When the Secret can not be read or written.
    pub(crate) async fn redeem(
        &self,
        secret: &[u8],
        key: [u8; 32],
        now: Millis,
    ) -> Result<Redeemed, SecretError> {
        let mut redeemed = Redeemed::UNKNOWN;
        self.fill(IDENTITY, "Opaque", |contents| {
            let (became, changed) = take(contents, &Grant::name(secret), key, now)?;
            redeemed = became;
            Ok::<_, SecretError>(changed)
        })
        .await?;
        Ok(redeemed)
    }
}

fn add(contents: &mut Contents, name: &str, grant: &[u8], now: Millis) -> Result<(), SecretError> {
    let lives = |text: &[u8]| Grant::parse(text).is_ok_and(|grant| !grant.expired(now));
    contents.retain(|key, text| !key.starts_with(PREFIX) || lives(&text.0));
    if contents.keys().filter(|key| key.starts_with(PREFIX)).count() >= MOST {
        return Err(SecretError::Full { name: IDENTITY });
    }
    contents.insert(format!("{PREFIX}{name}"), ByteString(grant.to_vec()));
    Ok(())
}

/// What becomes of an attempt, and whether the Secret changed.
fn take(
    contents: &mut Contents,
    name: &str,
    key: [u8; 32],
    now: Millis,
) -> Result<(Redeemed, bool), SecretError> {
    let place = format!("{PREFIX}{name}");
    let Some(text) = contents.get(&place) else { return Ok((Redeemed::UNKNOWN, false)) };
    let broken = |e: String| damaged(IDENTITY, &format!("a token in it: {e}"));
    let (redeemed, changed) = Grant::parse(&text.0).and_then(|g| g.take(key, now)).map_err(broken)?;
    let Some(grant) = changed else { return Ok((redeemed, false)) };
    let text = grant.to_json().map_err(|e| broken(e.to_string()))?;
    contents.insert(place, ByteString(text));
    Ok((redeemed, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Checked, Claim};
    use std::time::Duration;

    fn grant(now: u64) -> Vec<u8> {
        Grant::new(Claim::Gateway, Millis(now), Duration::from_millis(100)).to_json().unwrap()
    }

    #[test]
    fn a_token_is_one_keys_whichever_replica_takes_it_and_what_is_beside_it_stays() {
        let other = ("agent.pem".to_owned(), ByteString(b"kept".to_vec()));
        let mut contents = Contents::from([other.clone()]);
        add(&mut contents, "a", &grant(0), Millis(0)).unwrap();
        let granted = Redeemed::Granted(Checked::Gateway);
        let mut take = |name, key, now| take(&mut contents, name, [key; 32], Millis(now)).unwrap();
        assert_eq!(take("b", 1, 50), (Redeemed::UNKNOWN, false));
        assert_eq!(take("a", 1, 50), (granted.clone(), true));
        assert_eq!(take("a", 1, 60), (granted, false));
        assert!(matches!(take("a", 2, 60), (Redeemed::Refused(_), false)));
        assert!(matches!(take("a", 1, 101), (Redeemed::Refused(_), false)));
        add(&mut contents, "c", &grant(101), Millis(101)).unwrap();
        let names: Vec<&str> = contents.keys().map(String::as_str).collect();
        assert_eq!((names, &contents["agent.pem"]), (vec!["agent.pem", "token.c"], &other.1));
    }

    #[test]
    fn only_so_many_wait() {
        let mut contents = Contents::new();
        for n in 0..MOST {
            add(&mut contents, &n.to_string(), &grant(0), Millis(0)).unwrap();
        }
        let full = add(&mut contents, "more", &grant(0), Millis(0));
        assert!(matches!(full, Err(SecretError::Full { .. })), "{full:?}");
        assert_eq!(contents.len(), MOST);
        add(&mut contents, "later", &grant(101), Millis(101)).unwrap();
        assert_eq!(contents.len(), 1);
    }
}
