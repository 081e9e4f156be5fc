//! Record keys as bytes that sort as the keys do: the keys of the state store.
//!
//! One tag byte (the order of the variants), then numbers big-endian; a namespace and a name each end in a zero byte,
//! which sorts below everything that a name may hold.

use crate::Invalid;
use sealane_core::identity::{ClusterId, ServerId};
use sealane_core::name::ServiceKey;
use sealane_core::state::{AdminKey, RecordKey};

const META: u8 = 1;
const SERVER: u8 = 2;
const TOKEN: u8 = 3;
const CLUSTER: u8 = 4;
const SHARD: u8 = 5;
const ADMIN_RESULT: u8 = 6;
const ADMISSION: u8 = 7;

/// The bytes of a key.
#[must_use]
pub fn encode(key: &RecordKey) -> Vec<u8> {
    let tagged = |tag: u8, rest: &[u8]| [&[tag], rest].concat();
    match key {
        RecordKey::Meta => vec![META],
        RecordKey::Server(id) => tagged(SERVER, &id.0.to_be_bytes()),
        RecordKey::Token(hash) => tagged(TOKEN, hash),
        RecordKey::Cluster(id) => tagged(CLUSTER, &id.0.to_be_bytes()),
        RecordKey::Shard(service, cluster) => [
            &[SHARD],
            service.namespace.as_str().as_bytes(),
            &[0],
            service.name.as_str().as_bytes(),
            &[0],
            &cluster.0.to_be_bytes(),
        ]
        .concat(),
        RecordKey::AdminResult(at) => tagged(ADMIN_RESULT, &at.0.to_be_bytes()),
        RecordKey::Admission(name) => tagged(ADMISSION, name.as_str().as_bytes()),
    }
}

/// The key that the bytes say.
///
/// # Errors
/// When no key has these bytes.
pub fn decode(bytes: &[u8]) -> Result<RecordKey, Invalid> {
    let refusal = || Invalid::new("key", "is not a record key that this process knows");
    let (tag, rest) = bytes.split_first().ok_or_else(refusal)?;
    let number = || rest.try_into().map(u64::from_be_bytes).map_err(|_| refusal());
    Ok(match *tag {
        META if rest.is_empty() => RecordKey::Meta,
        SERVER => RecordKey::Server(ServerId(number()?)),
        TOKEN => RecordKey::Token(rest.try_into().map_err(|_| refusal())?),
        CLUSTER => RecordKey::Cluster(ClusterId(number()?)),
        SHARD => shard(rest).ok_or_else(refusal)?,
        ADMIN_RESULT => RecordKey::AdminResult(AdminKey(number()?)),
        ADMISSION => {
            let name = std::str::from_utf8(rest).ok().and_then(|text| text.parse().ok());
            RecordKey::Admission(name.ok_or_else(refusal)?)
        }
        _ => return Err(refusal()),
    })
}

fn shard(rest: &[u8]) -> Option<RecordKey> {
    let mut parts = rest.splitn(3, |b| *b == 0);
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let service = ServiceKey { namespace: text()?.parse().ok()?, name: text()?.parse().ok()? };
    let cluster = u64::from_be_bytes(parts.next()?.try_into().ok()?);
    Some(RecordKey::Shard(service, ClusterId(cluster)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategies;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_sort_as_keys_do(a in strategies::record_key(), b in strategies::record_key()) {
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.cmp(&b));
        }

        #[test]
        fn a_key_comes_back(key in strategies::record_key()) {
            prop_assert_eq!(decode(&encode(&key)), Ok(key));
        }

        #[test]
        fn garbage_is_a_key_only_if_it_encodes_to_itself(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(key) = decode(&bytes) {
                prop_assert_eq!(encode(&key), bytes);
            }
        }
    }

    #[test]
    fn prefixes_of_names_sort_as_the_names_do() {
        let key =
            |text: &str, cluster| RecordKey::Shard(ServiceKey::parse(text).unwrap(), ClusterId(cluster));
        let mut keys =
            [key("shop/a-b", 1), key("shop/a", 256), key("shop/a", 2), key("shop-x/a", 1), key("shop/ab", 1)];
        let mut bytes: Vec<_> = keys.iter().map(encode).collect();
        keys.sort();
        bytes.sort();
        assert_eq!(keys.iter().map(encode).collect::<Vec<_>>(), bytes);
    }
}
