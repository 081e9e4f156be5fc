//! The Secret: which federation it is, its root and the root's key.
//!
//! Law: it is written whole, once, at the version that was read; what another one wrote meanwhile is never overwritten. That
//! something was recorded is written beside it, where it stays when the record is emptied; that nothing ever was is said by
//! the chart, when it makes the Secret.

use super::decide::Recorded;
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use sealane_core::identity::FederationId;
use sealane_trust::issue::Authority;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// How long the API server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The annotation of a Secret in which nothing was ever recorded.
pub(super) const UNUSED: &str = "sealane.dev/unused";
/// The annotation that says which federation was recorded.
const MARK: &str = "sealane.dev/federation";

const FEDERATION: &str = "federation";
const ROOT: &str = "root.pem";
const KEY: &str = "root.key";

/// What the Secret records.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) federation: FederationId,
    pub(super) root: Authority,
}

/// The Secret as it was read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) record: Option<Record>,
    secret: Secret,
}

impl Found {
    /// What it says.
    ///
    /// # Errors
    /// When what is written beside the record is nonsense, or of another federation.
    pub(super) fn recorded(&self) -> Result<Recorded> {
        let annotations = self.secret.metadata.annotations.as_ref();
        let mark = annotations.and_then(|a| a.get(MARK));
        let mark: Option<FederationId> = mark.map(|id| id.parse()).transpose().context(MARK)?;
        Ok(match (&self.record, mark) {
            (Some(record), Some(mark)) if record.federation != mark => {
                bail!(
                    "it records the federation {}, and its annotation {MARK} says {mark}: one of them was changed; restore it from \
                     its copy",
                    record.federation
                )
            }
            (Some(record), _) => Recorded::Federation(record.federation),
            (None, Some(lost)) => Recorded::Lost(lost),
            (None, None) if annotations.is_some_and(|a| a.get(UNUSED).is_some_and(|v| v == "true")) => {
                Recorded::Unused
            }
            (None, None) => Recorded::Nothing,
        })
    }

    /// Whether it says beside the record that there is one: servers of former versions did not write that.
    pub(super) fn is_marked(&self) -> bool {
        let annotations = self.secret.metadata.annotations.as_ref();
        annotations.is_some_and(|a| a.contains_key(MARK) && !a.contains_key(UNUSED))
    }
}

/// Whether the Secret is ours now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It says what we wrote.
    Done,
    /// Somebody else changed it since it was read.
    Overtaken,
}

/// The place of the record.
#[derive(Debug)]
pub(super) struct Records {
    secrets: Api<Secret>,
    name: String,
}

impl Records {
    pub(super) fn new(client: Client, namespace: &str, name: &str) -> Self {
        Records { secrets: Api::namespaced(client, namespace), name: name.to_owned() }
    }

    /// Reads the Secret; one without content records nothing.
    pub(super) async fn read(&self) -> Result<Found> {
        let asked = timeout(PATIENCE, self.secrets.get_opt(&self.name)).await;
        let secret = asked.context("the API server did not answer in time")?;
        let secret = secret.with_context(|| format!("can not read the Secret {}", self.name))?;
        let secret = secret.with_context(|| {
            format!("there is no Secret {}: the chart makes it, without content", self.name)
        })?;
        let record = parse(secret.data.as_ref()).with_context(|| format!("the Secret {}", self.name))?;
        Ok(Found { record, secret })
    }

    /// Writes a record where there was none when it was read, or beside the same one that there is one.
    pub(super) async fn write(&self, found: Found, record: &Record) -> Result<Written> {
        let other = found.record.as_ref().is_some_and(|r| r.federation != record.federation);
        ensure!(!other, "the Secret {} records a federation already", self.name);
        let mut secret = found.secret;
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.remove(UNUSED);
        annotations.insert(MARK.to_owned(), record.federation.to_string());
        let key = record.root.key().to_pem();
        let content = [
            (FEDERATION, record.federation.to_string().into_bytes()),
            (ROOT, record.root.chain_pem().into_bytes()),
            (KEY, key.as_bytes().to_vec()),
        ];
        let data = secret.data.get_or_insert_default();
        data.extend(content.map(|(key, value)| (key.to_owned(), ByteString(value))));
        // The version that was read goes with it, so that the API server refuses it where there is a newer one.
        let parameters = PostParams::default();
        let sent = timeout(PATIENCE, self.secrets.replace(&self.name, &parameters, &secret)).await;
        match sent.context("the API server did not answer in time")? {
            Ok(_) => Ok(Written::Done),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Written::Overtaken),
            Err(error) => Err(error).with_context(|| format!("can not write the Secret {}", self.name)),
        }
    }
}

/// All three or nothing: half a record is somebody's mistake, and founding over it would be worse.
fn parse(data: Option<&BTreeMap<String, ByteString>>) -> Result<Option<Record>> {
    let get = |key: &str| data.and_then(|d| d.get(key)).map(|v| v.0.as_slice());
    let (federation, root, key) = match (get(FEDERATION), get(ROOT), get(KEY)) {
        (None, None, None) => return Ok(None),
        (Some(federation), Some(root), Some(key)) => (federation, root, key),
        _ => bail!("must hold {FEDERATION}, {ROOT} and {KEY} together, or none of them"),
    };
    let federation =
        std::str::from_utf8(federation).context(FEDERATION)?.trim().parse().context(FEDERATION)?;
    let root = Authority::load(root, key).context("its root")?;
    Ok(Some(Record { federation, root }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealane_trust::clock;
    use sealane_trust::issue::Validity;

    #[test]
    fn a_record_is_whole_or_refused() {
        assert!(parse(None).unwrap().is_none() && parse(Some(&BTreeMap::new())).unwrap().is_none());
        let validity = Validity::starting(clock::now(), Duration::from_secs(3600));
        let root = Authority::root(&"sealane.local".parse().unwrap(), "root", validity).unwrap();
        let id = FederationId([7; 16]);
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let whole = BTreeMap::from([
            (FEDERATION.to_owned(), bytes(&id.to_string())),
            (ROOT.to_owned(), bytes(&root.chain_pem())),
            (KEY.to_owned(), bytes(&root.key().to_pem())),
        ]);
        let read = parse(Some(&whole)).unwrap().unwrap();
        assert_eq!((read.federation, read.root.chain_pem()), (id, root.chain_pem()));
        for key in [FEDERATION, ROOT, KEY] {
            let mut part = whole.clone();
            part.remove(key);
            assert!(parse(Some(&part)).is_err(), "without {key}");
            part.insert(key.to_owned(), bytes("nonsense"));
            assert!(parse(Some(&part)).is_err(), "a damaged {key}");
        }
    }

    #[test]
    fn a_secret_that_lost_its_record_is_told_from_a_new_one() {
        let id = FederationId([7; 16]);
        let recorded = |annotations: &[(&str, &str)], record: Option<FederationId>| {
            let pairs = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let mut secret = Secret::default();
            secret.metadata.annotations = Some(pairs.collect());
            let validity = Validity::starting(clock::now(), Duration::from_secs(3600));
            let root = || Authority::root(&"sealane.local".parse().unwrap(), "root", validity).unwrap();
            let record = record.map(|federation| Record { federation, root: root() });
            let found = Found { record, secret };
            (found.recorded().map_err(drop), found.is_marked())
        };
        let text = id.to_string();
        let (unused, mark) = ((UNUSED, "true"), (MARK, text.as_str()));
        assert_eq!(recorded(&[], None), (Ok(Recorded::Nothing), false));
        assert_eq!(recorded(&[unused], None), (Ok(Recorded::Unused), false));
        // A rollback of the chart may bring back what it said at first.
        assert_eq!(recorded(&[unused, mark], None), (Ok(Recorded::Lost(id)), false));
        assert_eq!(recorded(&[unused, mark], Some(id)), (Ok(Recorded::Federation(id)), false));
        assert_eq!(recorded(&[mark], Some(id)), (Ok(Recorded::Federation(id)), true));
        assert_eq!(recorded(&[], Some(id)), (Ok(Recorded::Federation(id)), false));
        assert_eq!(recorded(&[mark], Some(FederationId([8; 16]))), (Err(()), true));
        assert_eq!(recorded(&[(MARK, "nonsense")], None), (Err(()), true));
    }
}
