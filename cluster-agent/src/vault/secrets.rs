//! The two Secrets.

mod grants;

use super::{Credentials, VaultError};
use crate::ca::{Ca, CaError};
use crate::desired::{MANAGED_BY, MANAGER};
use crate::kubernetes::{REQUEST, is_overtaken};
use crate::state::Membership;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use sealane_core::name::{Namespace, TrustDomain};
use sealane_trust::key::PrivateKey;
use std::collections::BTreeMap;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The Secret with the key and certificate towards the store, and what joining brought beside them.
pub const IDENTITY: &str = "sealane-agent-identity";
/// The Secret with the cluster's root.
pub const CA: &str = "sealane-agent-ca";

const JOINING: &str = "joining.key";
const AGENT: &str = "agent.pem";
const ROOTS: &str = "federation.pem";
const MEMBER: &str = "member.json";
const CA_KEY: &str = "tls.key";
const CA_CERTIFICATE: &str = "tls.crt";

/// How often a Secret that others write at the same time is tried.
const TRIES: usize = 5;

/// A Secret can not be used. No text of it is ever in here.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server did not answer.
    #[error("Secret {name}: the API server has not answered for {REQUEST:?}")]
    Silent {
        /// The Secret.
        name: &'static str,
    },
    /// The API server refused, or could not be reached.
    #[error("can not {verb} Secret {name}: {source}")]
    Call {
        /// What was tried.
        verb: &'static str,
        /// The Secret.
        name: &'static str,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// Others write it all the time.
    #[error("Secret {name} is changed by others all the time")]
    Contended {
        /// The Secret.
        name: &'static str,
    },
    /// Another replica joined meanwhile.
    #[error("Secret {name} says that another replica has joined")]
    Joined {
        /// The Secret.
        name: &'static str,
    },
    /// As many workload tokens wait as may.
    #[error("Secret {name}: too many workload tokens wait to be used; they go when they expire")]
    Full {
        /// The Secret.
        name: &'static str,
    },
    /// What it holds is not what we wrote.
    #[error("Secret {name} is damaged: {reason}")]
    Damaged {
        /// The Secret.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl SecretError {
    pub(super) fn is_transient(&self) -> bool {
        !matches!(self, SecretError::Damaged { .. })
    }
}

/// The agent's Secrets.
#[derive(Debug, Clone)]
pub struct Secrets(Box<Api<Secret>>);

type Contents = BTreeMap<String, ByteString>;

impl Secrets {
    /// Those of a namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &Namespace) -> Self {
        Secrets(Box::new(Api::namespaced(client, namespace.as_str())))
    }

    pub(super) async fn joining_key(&self) -> Result<PrivateKey, VaultError> {
        let contents = self
            .fill(IDENTITY, "Opaque", |contents| {
                add_joining_key(contents, || PrivateKey::generate().map_err(VaultError::from))
            })
            .await?;
        if contents.contains_key(MEMBER) {
            return Err(SecretError::Joined { name: IDENTITY }.into());
        }
        Ok(PrivateKey::from_pem(text(IDENTITY, &contents, JOINING)?)?)
    }

    pub(super) async fn credentials(&self) -> Result<Option<Credentials>, VaultError> {
        match self.get(IDENTITY).await? {
            Some(secret) => Ok(credentials(&held(secret))?),
            None => Ok(None),
        }
    }

    pub(super) async fn keep(
        &self,
        before: Option<&Credentials>,
        brought: Credentials,
    ) -> Result<Credentials, VaultError> {
        let expected = before.map(|c| c.identity.clone());
        let contents = self
            .fill::<SecretError>(IDENTITY, "Opaque", |contents| {
                // Another replica's stays: its key is as good, and two keys would follow each other for ever.
                let known = |there: &ByteString| expected.as_ref().is_some_and(|e| e.as_slice() == there.0);
                if !contents.get(AGENT).is_none_or(known) {
                    return Ok(false);
                }
                contents.remove(JOINING);
                contents.insert(AGENT.to_owned(), ByteString(brought.identity.to_vec()));
                contents.insert(ROOTS.to_owned(), ByteString(brought.roots.clone().into_bytes()));
                contents.insert(MEMBER.to_owned(), ByteString(brought.membership.to_json().into_bytes()));
                Ok(true)
            })
            .await?;
        let missing = || damaged(IDENTITY, "what was just written is not there");
        Ok(credentials(&contents)?.ok_or_else(missing)?)
    }

    pub(super) async fn ca(&self, domain: &TrustDomain) -> Result<Ca, VaultError> {
        let mut made = false;
        let contents = self
            .fill(CA, "kubernetes.io/tls", |contents| {
                made = add_ca(contents, || Ca::make(domain))?;
                Ok::<_, VaultError>(made)
            })
            .await?;
        if made {
            tracing::info!(trust_domain = %domain, secret = CA, "made the cluster's root");
        }
        let (certificate, key) = (text(CA, &contents, CA_CERTIFICATE)?, text(CA, &contents, CA_KEY)?);
        Ok(Ca::load(certificate, key, domain)?)
    }

    /// The cluster's own root, which an agent has made.
    ///
    /// # Errors
    /// When it is not there, can not be read, or is another cluster's.
    pub async fn kept_ca(&self, domain: &TrustDomain) -> Result<Ca, VaultError> {
        let contents = self.get(CA).await?.map(held).unwrap_or_default();
        let (certificate, key) = (text(CA, &contents, CA_CERTIFICATE)?, text(CA, &contents, CA_KEY)?);
        Ok(Ca::load(certificate, key, domain)?)
    }

    /// Changes a Secret, or makes it, unless the change finds that there is nothing to do. A change is never made to
    /// what was not read: when somebody else was faster it is read again. Returns what holds.
    async fn fill<E: From<SecretError>>(
        &self,
        name: &'static str,
        kind: &str,
        mut change: impl FnMut(&mut Contents) -> Result<bool, E>,
    ) -> Result<Contents, E> {
        for _ in 0..TRIES {
            let found = self.get(name).await?;
            let exists = found.is_some();
            let mut secret = found.unwrap_or_else(|| new(name, kind));
            let mut contents = secret.data.take().unwrap_or_default();
            if !change(&mut contents)? {
                return Ok(contents);
            }
            secret.data = Some(contents);
            let params = PostParams::default();
            let written = match exists {
                true => bounded("update", name, self.0.replace(name, &params, &secret)).await,
                false => bounded("create", name, self.0.create(&params, &secret)).await,
            };
            match written {
                Ok(secret) => return Ok(held(secret)),
                Err(SecretError::Call { source, .. }) if is_overtaken(&source) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(SecretError::Contended { name }.into())
    }

    async fn get(&self, name: &'static str) -> Result<Option<Secret>, SecretError> {
        bounded("get", name, self.0.get_opt(name)).await
    }
}

async fn bounded<T>(
    verb: &'static str,
    name: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, SecretError> {
    match timeout(REQUEST, request).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(SecretError::Call { verb, name, source: Box::new(error) }),
        Err(_) => Err(SecretError::Silent { name }),
    }
}

fn new(name: &str, kind: &str) -> Secret {
    let label = (MANAGED_BY.to_owned(), MANAGER.to_owned());
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([label])),
            ..ObjectMeta::default()
        },
        type_: Some(kind.to_owned()),
        ..Secret::default()
    }
}

fn held(secret: Secret) -> Contents {
    secret.data.unwrap_or_default()
}

/// Puts the key of a join that has not succeeded there, unless there is one or the cluster has joined.
fn add_joining_key<E>(
    contents: &mut Contents,
    make: impl FnOnce() -> Result<PrivateKey, E>,
) -> Result<bool, E> {
    if contents.contains_key(JOINING) || contents.contains_key(MEMBER) {
        return Ok(false);
    }
    contents.insert(JOINING.to_owned(), ByteString(make()?.to_pem().as_bytes().to_vec()));
    Ok(true)
}

/// Puts a root there where there is none. Half of one is somebody's mistake: the certificates that hang on it would be
/// worth nothing under another.
fn add_ca(contents: &mut Contents, make: impl FnOnce() -> Result<Ca, CaError>) -> Result<bool, VaultError> {
    let has = |key| contents.get(key).is_some_and(|b: &ByteString| !b.0.is_empty());
    match (has(CA_KEY), has(CA_CERTIFICATE)) {
        (true, true) => Ok(false),
        (false, false) => {
            let ca = make()?;
            contents.insert(CA_KEY.to_owned(), ByteString(ca.key_pem().as_bytes().to_vec()));
            contents.insert(CA_CERTIFICATE.to_owned(), ByteString(ca.root_pem().into_bytes()));
            Ok(true)
        }
        _ => Err(damaged(
            CA,
            "it holds only one of tls.key and tls.crt: restore it from its copy, or delete it, whereupon a new root is made \
             and every proxy of this cluster needs a new token",
        )
        .into()),
    }
}

fn credentials(contents: &Contents) -> Result<Option<Credentials>, SecretError> {
    if !contents.contains_key(MEMBER) {
        return Ok(None);
    }
    let member = String::from_utf8_lossy(text(IDENTITY, contents, MEMBER)?);
    Ok(Some(Credentials {
        membership: Membership::from_json(&member)
            .map_err(|e| damaged(IDENTITY, &format!("{MEMBER}: {e}")))?,
        identity: Zeroizing::new(text(IDENTITY, contents, AGENT)?.to_vec()),
        roots: String::from_utf8_lossy(text(IDENTITY, contents, ROOTS)?).into_owned(),
    }))
}

fn text<'a>(name: &'static str, contents: &'a Contents, key: &str) -> Result<&'a [u8], SecretError> {
    let found = contents.get(key).map(|bytes| bytes.0.as_slice());
    found.ok_or_else(|| damaged(name, &format!("it has no {key}")))
}

fn damaged(name: &'static str, reason: &str) -> SecretError {
    SecretError::Damaged { name, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> ByteString {
        ByteString(text.as_bytes().to_vec())
    }

    #[test]
    fn no_key_is_made_where_there_is_one() {
        let never = || -> Result<PrivateKey, VaultError> { panic!("a key was made for nothing") };
        for kept in [JOINING, MEMBER] {
            let mut contents = Contents::from([(kept.to_owned(), bytes("kept"))]);
            assert!(!add_joining_key(&mut contents, never).unwrap(), "{kept}");
            assert_eq!(contents, Contents::from([(kept.to_owned(), bytes("kept"))]));
        }
        let mut contents = Contents::new();
        assert!(add_joining_key(&mut contents, PrivateKey::generate).unwrap());
        assert!(PrivateKey::from_pem(&contents[JOINING].0).is_ok());
    }

    #[test]
    fn a_root_is_made_where_there_is_none_and_half_of_one_is_refused() {
        let never = || -> Result<Ca, CaError> { panic!("a root was made for nothing") };
        let east = TrustDomain::parse("east.fed").unwrap();
        let mut contents = Contents::from([CA_KEY, CA_CERTIFICATE].map(|key| (key.to_owned(), bytes(""))));
        assert!(add_ca(&mut contents, || Ca::make(&east)).unwrap());
        let whole = contents.clone();
        assert!(!add_ca(&mut contents, never).unwrap());
        assert_eq!(contents, whole);
        assert!(Ca::load(&contents[CA_CERTIFICATE].0, &contents[CA_KEY].0, &east).is_ok());
        for lost in [CA_KEY, CA_CERTIFICATE] {
            let mut half = whole.clone();
            half.insert(lost.to_owned(), bytes(""));
            assert!(add_ca(&mut half, never).unwrap_err().to_string().contains("only one of"), "{lost}");
        }
    }
}
