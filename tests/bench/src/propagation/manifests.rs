//! The services of `west`: one that is measured, and many others.

use crate::listener::{NAMESPACE, PROBE};
use anyhow::{Context, Result};
use sealane::local::Site;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Its endpoints.
const PROBE_ENDPOINTS: u32 = 8;
const PORT: u16 = 80;

/// How many there are.
#[derive(Debug)]
pub(super) struct Manifests {
    services: u32,
    endpoints: u32,
    next: AtomicU64,
    probes: AtomicUsize,
}

/// A manifest that is ready to be written.
#[derive(Debug)]
pub(super) struct Change {
    name: String,
    text: String,
}

impl Change {
    /// Writes it whole.
    pub(super) fn write(&self, site: &Site) -> Result<()> {
        self.write_at(site.root())
    }

    /// The same in the directory of a site: drafted elsewhere and renamed into place.
    pub(super) fn write_at(&self, root: &Path) -> Result<()> {
        let (draft, place) = (root.join(format!("{}.draft", self.name)), place(root, &self.name));
        std::fs::write(&draft, &self.text).with_context(|| format!("can not write {}", draft.display()))?;
        std::fs::rename(&draft, &place).with_context(|| format!("can not write {}", place.display()))
    }

    /// Where it is written to.
    pub(super) fn place(&self, site: &Site) -> PathBuf {
        place(site.root(), &self.name)
    }
}

impl Manifests {
    pub(super) fn new(services: u32, endpoints: u32) -> Self {
        Manifests { services, endpoints, next: AtomicU64::new(0), probes: AtomicUsize::new(0) }
    }

    /// Writes all services, exports and endpoints.
    pub(super) fn begin(&self, site: &Site) -> Result<()> {
        for number in 0..self.services {
            let name = other(number);
            site.serve(NAMESPACE, &name, PORT)?;
            slice(&name, 10 + number, self.endpoints, self.endpoints).write(site)?;
            site.export(NAMESPACE, &name)?;
        }
        site.serve(NAMESPACE, PROBE, PORT)?;
        self.probe(PROBE_ENDPOINTS).write(site)?;
        site.export(NAMESPACE, PROBE)
    }

    /// How many endpoints are ready after the next change: never as many as after the last one, whatever the load.
    pub(super) fn ready(&self) -> u32 {
        // It begins below what all services begin with.
        [7, 8, 6, 5][self.probes.fetch_add(1, Ordering::Relaxed) % 4]
    }

    /// The measured service with so many endpoints ready.
    pub(super) fn probe(&self, ready: u32) -> Change {
        slice(PROBE, 1, PROBE_ENDPOINTS, ready)
    }

    /// The next change of another service: one of its endpoints comes or goes.
    pub(super) fn another(&self) -> Change {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let services = u64::from(self.services);
        let (number, round) = (count % services, count / services);
        let number = u32::try_from(number).unwrap_or(0);
        let gone = u32::from(round.is_multiple_of(2));
        slice(&other(number), 10 + number, self.endpoints, self.endpoints - gone)
    }
}

/// Where a site keeps a manifest.
fn place(root: &Path, name: &str) -> PathBuf {
    root.join("manifests").join(format!("{name}.yaml"))
}

fn other(number: u32) -> String {
    format!("other-{number}")
}

/// An EndpointSlice of which the first endpoints are ready.
fn slice(service: &str, block: u32, endpoints: u32, ready: u32) -> Change {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-1\n  namespace: \
         {NAMESPACE}\n  labels:\n    kubernetes.io/service-name: {service}\naddressType: IPv4\nports:\n- name: http\n  \
         protocol: TCP\n  port: 8080\nendpoints:\n"
    );
    for endpoint in 0..endpoints {
        let (high, low, last) = (block >> 8, block & 255, endpoint + 1);
        // Writing to a String can not fail.
        let _ = writeln!(
            text,
            "- addresses:\n  - 10.{high}.{low}.{last}\n  conditions:\n    ready: {}",
            endpoint < ready
        );
    }
    Change { name: format!("{service}.slice"), text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_one() {
        let all = Manifests::new(3, 5);
        let ready: Vec<u32> = (0..201).map(|_| all.ready()).collect();
        assert!(ready.windows(2).all(|two| two[0] != two[1]));
        assert_ne!(ready[0], PROBE_ENDPOINTS);
        let first: Vec<String> = (0..3).map(|_| all.another().text).collect();
        let second: Vec<String> = (0..3).map(|_| all.another().text).collect();
        assert!(first.iter().zip(&second).all(|(one, two)| one != two));
    }

    #[test]
    fn a_slice_says_which_of_its_endpoints_are_ready() {
        let change = slice("probe", 300, 3, 2);
        let readiness = change.text.lines().filter(|l| l.contains("ready")).collect::<Vec<_>>();
        assert_eq!(readiness, ["    ready: true", "    ready: true", "    ready: false"]);
        assert!(change.text.contains("- 10.1.44.3\n") && change.name == "probe.slice");
    }
}
