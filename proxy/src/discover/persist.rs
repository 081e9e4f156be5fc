//! The last configuration on disk, so that a restarted proxy serves with its agent away.
//!
//! One file: the SHA-256 of the rest, then two length-delimited messages, the welcome and a full delta. A damaged file
//! is as none, and said; it is never used in part.

use super::items::Key;
use prost::Message;
use sealane_proto::agent::v1::{ProxyDelta, ProxyItem, ProxyWelcome};
use sealane_trust::file::{self, Access};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FILE: &str = "config.bin";
const MAX_FILE: u64 = 256 * 1024 * 1024;

/// Writes and reads the file.
#[derive(Debug, Clone)]
pub(crate) struct Store(PathBuf);

impl Store {
    /// In a directory that exists.
    pub(crate) fn new(directory: &Path) -> Self {
        Store(directory.join(FILE))
    }

    /// What was saved last, where that is whole.
    pub(crate) fn load(&self) -> Option<(ProxyWelcome, ProxyDelta)> {
        if !self.0.exists() {
            return None;
        }
        let bytes = file::read_private(&self.0, MAX_FILE)
            .inspect_err(|error| tracing::warn!(%error, "can not read the saved configuration"))
            .ok()?;
        let loaded = decode(&bytes);
        if loaded.is_none() {
            tracing::warn!(path = %self.0.display(), "the saved configuration is damaged and not used");
        }
        loaded
    }

    /// Saves. Not on a worker: it syncs the disk.
    pub(crate) fn save(&self, welcome: &ProxyWelcome, delta: &ProxyDelta) {
        if let Err(error) = file::write(&self.0, &encode(welcome, delta), Access::Private) {
            tracing::warn!(%error, "can not save the configuration");
        }
    }
}

/// A full delta of all items.
pub(crate) fn full(
    version: u64,
    revision: sealane_core::time::Revision,
    items: &BTreeMap<Key, ProxyItem>,
) -> ProxyDelta {
    use sealane_proto::convert::Wire;
    ProxyDelta {
        version,
        revision: Some(revision.to_wire()),
        full: true,
        upserts: items.values().cloned().collect(),
        deletes: Vec::new(),
    }
}

fn encode(welcome: &ProxyWelcome, delta: &ProxyDelta) -> Vec<u8> {
    let body = [welcome.encode_length_delimited_to_vec(), delta.encode_length_delimited_to_vec()].concat();
    [&sealane_trust::sha256(&body)[..], &body].concat()
}

fn decode(bytes: &[u8]) -> Option<(ProxyWelcome, ProxyDelta)> {
    let (hash, mut body) = bytes.split_at_checked(32)?;
    if sealane_trust::sha256(body) != hash {
        return None;
    }
    let welcome = ProxyWelcome::decode_length_delimited(&mut body).ok()?;
    let delta = ProxyDelta::decode_length_delimited(&mut body).ok()?;
    body.is_empty().then_some((welcome, delta))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        assert_eq!(store.load(), None);
        let welcome = ProxyWelcome { cluster: "west".into(), ..ProxyWelcome::default() };
        let delta = full(7, sealane_core::time::Revision { generation: 1, index: 9 }, &BTreeMap::new());
        store.save(&welcome, &delta);
        assert_eq!(store.load(), Some((welcome.clone(), delta.clone())));
        let mut bytes = encode(&welcome, &delta);
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(decode(&bytes), None);
    }
}
