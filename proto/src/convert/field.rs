//! Single fields: names, numbers, addresses, hashes, lists.

use super::{Invalid, Wire};
use sealane_core::name::NameError;
use sealane_core::state::Hash;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

/// A name, an id or another value that is made by parsing.
///
/// # Errors
/// When the text breaks the rule of its kind.
pub fn name<T: FromStr<Err = NameError>>(text: &str, field: &str) -> Result<T, Invalid> {
    text.parse().map_err(|e: NameError| Invalid::new(field, e.to_string()))
}

/// A name that may be absent.
///
/// # Errors
/// When it is there and breaks the rule of its kind.
pub fn optional_name<T: FromStr<Err = NameError>>(
    text: Option<&str>,
    field: &str,
) -> Result<Option<T>, Invalid> {
    text.map(|t| name(t, field)).transpose()
}

/// A TCP or UDP port, never 0.
///
/// # Errors
/// When it is 0 or above 65535.
pub fn port(number: u32, field: &str) -> Result<u16, Invalid> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(Invalid::new(field, format!("must be 1 to 65535, not {number}"))),
    }
}

/// A port that may be absent.
///
/// # Errors
/// When it is there and 0 or above 65535.
pub fn optional_port(number: Option<u32>, field: &str) -> Result<Option<u16>, Invalid> {
    number.map(|n| port(n, field)).transpose()
}

/// An IP address from 4 or 16 bytes.
///
/// # Errors
/// When it has another length.
pub fn address(bytes: &[u8], field: &str) -> Result<IpAddr, Invalid> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes)
        .map(IpAddr::from)
        .map_err(|_| Invalid::new(field, format!("must be 4 or 16 bytes, not {}", bytes.len())))
}

/// An IP address as 4 or 16 bytes.
#[must_use]
pub fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A SHA-256.
///
/// # Errors
/// When it is not 32 bytes.
pub fn hash(bytes: &[u8], field: &str) -> Result<Hash, Invalid> {
    sized(bytes, field)
}

/// The bytes of an id.
///
/// # Errors
/// When they are not 16.
pub fn id(bytes: &[u8], field: &str) -> Result<[u8; 16], Invalid> {
    sized(bytes, field)
}

fn sized<const N: usize>(bytes: &[u8], field: &str) -> Result<[u8; N], Invalid> {
    bytes.try_into().map_err(|_| Invalid::new(field, format!("must be {N} bytes, not {}", bytes.len())))
}

/// A message that must be there.
///
/// # Errors
/// When it is missing or invalid itself.
pub fn present<T: Wire>(message: Option<T::Message>, field: &str) -> Result<T, Invalid> {
    inner(message.ok_or_else(|| Invalid::missing(field))?, field)
}

/// A message that may be absent.
///
/// # Errors
/// When it is there and invalid.
pub fn optional<T: Wire>(message: Option<T::Message>, field: &str) -> Result<Option<T>, Invalid> {
    message.map(|m| inner(m, field)).transpose()
}

/// A message inside another.
///
/// # Errors
/// When it is invalid; the path then begins with `field`.
pub fn inner<T: Wire>(message: T::Message, field: &str) -> Result<T, Invalid> {
    T::from_wire(message).map_err(|e| e.within(field))
}

/// A list of messages, in order.
///
/// # Errors
/// When one of them is invalid; the path then names its place.
pub fn list<T: Wire>(messages: Vec<T::Message>, field: &str) -> Result<Vec<T>, Invalid> {
    messages
        .into_iter()
        .enumerate()
        .map(|(i, m)| T::from_wire(m).map_err(|e| e.within(&format!("{field}[{i}]"))))
        .collect()
}

/// The messages of a list of values.
pub fn to_list<'a, T: Wire + 'a>(values: impl IntoIterator<Item = &'a T>) -> Vec<T::Message> {
    values.into_iter().map(Wire::to_wire).collect()
}

/// A set of messages.
///
/// # Errors
/// When one of them is invalid, or two are the same.
pub fn set<T: Wire + Ord>(messages: Vec<T::Message>, field: &str) -> Result<BTreeSet<T>, Invalid> {
    unique(list(messages, field)?, field)
}

/// A set of names.
///
/// # Errors
/// When one of them breaks its rule, or two are the same.
pub fn names<T: FromStr<Err = NameError> + Ord>(
    texts: &[String],
    field: &str,
) -> Result<BTreeSet<T>, Invalid> {
    let parsed = texts
        .iter()
        .enumerate()
        .map(|(i, t)| name(t, &format!("{field}[{i}]")))
        .collect::<Result<Vec<T>, _>>()?;
    unique(parsed, field)
}

/// The texts of names.
pub(crate) fn texts<'a, T: ToString + 'a>(names: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    names.into_iter().map(ToString::to_string).collect()
}

fn unique<T: Ord>(values: Vec<T>, field: &str) -> Result<BTreeSet<T>, Invalid> {
    let count = values.len();
    let set: BTreeSet<T> = values.into_iter().collect();
    if set.len() == count { Ok(set) } else { Err(Invalid::new(field, "names one thing twice")) }
}

/// A map, from pairs that were read already.
pub(crate) fn map<K: Ord, V>(
    pairs: impl Iterator<Item = Result<(K, V), Invalid>>,
    field: &str,
) -> Result<BTreeMap<K, V>, Invalid> {
    let mut map = BTreeMap::new();
    for (i, pair) in pairs.enumerate() {
        let (key, value) = pair.map_err(|e| e.within(&format!("{field}[{i}]")))?;
        if map.insert(key, value).is_some() {
            return Err(Invalid::new(&format!("{field}[{i}]"), "names one thing twice"));
        }
    }
    Ok(map)
}

/// A list of no more than `max`.
pub(crate) fn at_most<T>(values: &[T], max: usize, field: &str) -> Result<(), Invalid> {
    if values.len() <= max {
        return Ok(());
    }
    Err(Invalid::new(field, format!("holds {}, more than {max}", values.len())))
}
