//! The addresses that this cluster gives to its imports.
//!
//! Law: an address is stable over restarts, and never another import's while its own lives. It is on disk before
//! anybody is told. An import that went away keeps its address until the range has no other left, so that one which
//! comes back is where it was.

use sealane_core::name::ServiceKey;
use sealane_trust::file::{self, Access, FileError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The largest file that is read.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// A range of addresses, as CIDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    prefix: u8,
}

impl Range {
    fn bits(self) -> u8 {
        if self.base.is_ipv4() { 32 } else { 128 }
    }

    /// How many addresses imports may have: all but the first and the last.
    #[must_use]
    pub fn size(self) -> u64 {
        let host = u32::from(self.bits() - self.prefix).min(63);
        (1u64 << host) - 2
    }

    /// An address by its number from 0.
    fn address(self, number: u64) -> IpAddr {
        let offset = number + 1;
        match self.base {
            IpAddr::V4(v4) => IpAddr::from((v4.to_bits() + u32::try_from(offset).unwrap_or(0)).to_be_bytes()),
            IpAddr::V6(v6) => IpAddr::from((v6.to_bits() + u128::from(offset)).to_be_bytes()),
        }
    }

    /// Whether imports may have an address.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let offset = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(v4)) => {
                u128::from(v4.to_bits()).checked_sub(u128::from(base.to_bits()))
            }
            (IpAddr::V6(base), IpAddr::V6(v6)) => v6.to_bits().checked_sub(base.to_bits()),
            _ => None,
        };
        offset.is_some_and(|o| o >= 1 && o <= u128::from(self.size()))
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refusal = || format!("{text:?} is not a range such as 240.0.0.0/16");
        let (base, prefix) = text.split_once('/').ok_or_else(refusal)?;
        let base: IpAddr = base.parse().map_err(|_| refusal())?;
        let prefix: u8 = prefix.parse().map_err(|_| refusal())?;
        let range = Range { base, prefix };
        if prefix > range.bits() - 2 {
            return Err(format!("{text:?} is too small: it must leave at least two bits, such as /30"));
        }
        let host = u32::from(range.bits() - prefix);
        let aligned = match base {
            IpAddr::V4(v4) => {
                host == 32 && v4.to_bits() == 0 || host < 32 && v4.to_bits().trailing_zeros() >= host
            }
            IpAddr::V6(v6) => v6.to_bits().trailing_zeros() >= host,
        };
        if aligned { Ok(range) } else { Err(format!("{text:?} has bits set beyond its prefix")) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// The addresses could not be read, kept or given.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is damaged. Guessing would give imports other addresses under running clients.
    #[error("{path} is damaged ({reason}): restore it, or remove it and have every import get a new address", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    service: String,
    address: IpAddr,
}

/// Who has which address.
#[derive(Debug, Clone)]
pub struct Addresses {
    range: Range,
    path: PathBuf,
    given: BTreeMap<ServiceKey, IpAddr>,
    taken: BTreeMap<IpAddr, ServiceKey>,
    live: BTreeSet<ServiceKey>,
    /// The living for which there was no address left.
    waiting: BTreeSet<ServiceKey>,
}

impl Addresses {
    /// Reads who had which address; those outside the range, when it was changed, are forgotten.
    ///
    /// # Errors
    /// When the file is there and can not be read.
    pub fn open(path: &Path, range: Range) -> Result<Self, AddressError> {
        let mut addresses = Addresses {
            range,
            path: path.to_owned(),
            given: BTreeMap::new(),
            taken: BTreeMap::new(),
            live: BTreeSet::new(),
            waiting: BTreeSet::new(),
        };
        if !path.exists() {
            return Ok(addresses);
        }
        let damaged = |reason: String| AddressError::Damaged { path: path.to_owned(), reason };
        let bytes = file::read(path, MAX_FILE)?;
        let kept: Vec<Kept> = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        for Kept { service, address } in kept {
            let service = ServiceKey::parse(&service).map_err(|e| damaged(e.to_string()))?;
            if range.contains(address) {
                addresses.taken.insert(address, service.clone());
                addresses.given.insert(service, address);
            }
        }
        Ok(addresses)
    }

    /// Takes note of imports that came (true) or went (false), and gives each that came its address. Imports for which
    /// the range has none left get one when there is one. Gives those that were given one.
    ///
    /// # Errors
    /// When a new address could not be put on disk; nothing is given and nothing noted then.
    pub fn follow<'a>(
        &mut self,
        changed: impl Iterator<Item = (&'a ServiceKey, bool)>,
    ) -> Result<Vec<ServiceKey>, AddressError> {
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for (service, lives) in changed {
            match (lives, self.live.contains(service)) {
                (true, false) => came.push(service),
                (false, true) => went.push(service),
                _ => {}
            }
        }
        if came.is_empty() && went.is_empty() {
            return Ok(Vec::new());
        }
        let mut next = self.clone();
        for service in went {
            next.live.remove(service);
            next.waiting.remove(service);
        }
        for service in came {
            next.live.insert(service.clone());
            if !next.given.contains_key(service) {
                next.waiting.insert(service.clone());
            }
        }
        let mut given = Vec::new();
        for service in std::mem::take(&mut next.waiting) {
            match next.free(&service) {
                Some(address) => {
                    next.give(service.clone(), address);
                    given.push(service);
                }
                None => {
                    tracing::warn!(%service, range = %next.range, "no address left for an import");
                    next.waiting.insert(service);
                }
            }
        }
        if !given.is_empty() {
            next.write()?;
        }
        *self = next;
        Ok(given)
    }

    /// The address of an import.
    #[must_use]
    pub fn of(&self, service: &ServiceKey) -> Option<IpAddr> {
        self.given.get(service).copied().filter(|_| self.live.contains(service))
    }

    fn give(&mut self, service: ServiceKey, address: IpAddr) {
        if let Some(former) = self.taken.insert(address, service.clone()) {
            self.given.remove(&former);
        }
        self.given.insert(service, address);
    }

    /// The first free address from a start that depends on the name (so that what is seldom lost is seldom moved),
    /// else one of an import that is gone.
    fn free(&self, service: &ServiceKey) -> Option<IpAddr> {
        let size = self.range.size();
        if (self.taken.len() as u64) < size {
            let hash = sealane_trust::sha256(service.to_string().as_bytes());
            let start =
                u64::from_be_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]);
            let start = start % size;
            let numbers = (start..size).chain(0..start);
            return numbers.map(|n| self.range.address(n)).find(|a| !self.taken.contains_key(a));
        }
        self.taken.iter().find(|(_, owner)| !self.live.contains(*owner)).map(|(address, _)| *address)
    }

    fn write(&self) -> Result<(), AddressError> {
        let kept = |(service, address): (&ServiceKey, &IpAddr)| Kept {
            service: service.to_string(),
            address: *address,
        };
        let kept: Vec<Kept> = self.given.iter().map(kept).collect();
        let text = serde_json::to_vec_pretty(&kept)
            .map_err(|e| AddressError::Damaged { path: self.path.clone(), reason: e.to_string() })?;
        Ok(file::write(&self.path, &text, Access::Public)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> BTreeSet<ServiceKey> {
        names.iter().map(|n| ServiceKey::parse(n).unwrap()).collect()
    }

    /// As if these, and no others, were imported now. Says how many were given an address.
    fn live(addresses: &mut Addresses, names: &[&str]) -> usize {
        let (before, now) = (addresses.live.clone(), keys(names));
        let changed = before.union(&now).map(|key| (key, now.contains(key)));
        addresses.follow(changed).unwrap().len()
    }

    fn all(addresses: &Addresses, names: &[&str]) -> Vec<Option<IpAddr>> {
        keys(names).iter().map(|k| addresses.of(k)).collect()
    }

    #[test]
    fn addresses_are_stable_over_restarts_and_absence() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("addresses.json");
        let range: Range = "127.11.200.0/24".parse().unwrap();
        let mut first = Addresses::open(&path, range).unwrap();
        assert_eq!(live(&mut first, &["a/x", "a/y", "b/x"]), 3);
        let given = all(&first, &["a/x", "a/y", "b/x"]);
        assert!(given.iter().all(|a| range.contains(a.unwrap())));
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 3);

        let mut again = Addresses::open(&path, range).unwrap();
        assert_eq!(live(&mut again, &["a/y"]), 0);
        assert_eq!(all(&again, &["a/x", "a/y", "b/x"]), [None, given[1], None]);
        assert_eq!(live(&mut again, &["a/x", "a/y", "b/x"]), 0);
        assert_eq!(all(&again, &["a/x", "a/y", "b/x"]), given);
    }

    #[test]
    fn a_full_range_takes_from_the_dead_only() {
        let directory = tempfile::tempdir().unwrap();
        let mut addresses =
            Addresses::open(&directory.path().join("a"), "10.0.0.0/30".parse().unwrap()).unwrap();
        assert_eq!(live(&mut addresses, &["n/a", "n/b", "n/c"]), 2);
        let given = all(&addresses, &["n/a", "n/b", "n/c"]);
        assert_eq!(given.iter().flatten().count(), 2, "two addresses for three");
        assert_eq!(live(&mut addresses, &["n/b", "n/c"]), 1);
        let later = all(&addresses, &["n/b", "n/c"]);
        assert_eq!(later[0], given[1], "the living one keeps its own");
        assert_eq!(later[1], given[0]);
    }

    #[test]
    fn a_damaged_file_is_not_guessed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "[{]").unwrap();
        let refusal = Addresses::open(&path, "10.0.0.0/24".parse().unwrap()).unwrap_err();
        assert!(matches!(refusal, AddressError::Damaged { .. }), "{refusal}");
    }

    #[test]
    fn a_range_is_aligned_and_not_too_small() {
        for bad in ["", "10.0.0.0", "10.0.0.0/31", "10.0.0.1/24", "10.0.0.0/33", "fd00::1/64"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
        assert_eq!("fd00::/112".parse::<Range>().unwrap().size(), 65_534);
    }
}
