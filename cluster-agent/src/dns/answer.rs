//! What a question is answered. Pure.
//!
//! A name either is not there (NXDOMAIN), or is and has no records of the type (NODATA), or has them. Names with
//! others below them are there: whoever caches NXDOMAIN may take it for everything below (RFC 8020). So
//! `<cluster>.<service>…`, which has no records ever, is there exactly while endpoints are named below it.

use super::entry::{Entry, Instance, NamedPort, Places};
use super::zone::Zone;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, HINFO, NS, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use sealane_core::name::{Namespace, ServiceKey, ServiceName};
use sealane_core::service::{IpFamily, Protocol};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// How long an answer may be kept, in seconds; one that there is none, too.
pub(crate) const TTL: u32 = 5;
/// The most endpoints of one headless name in an answer: as AAAA records they take less than half of the largest
/// message. Of more, always the same ones are answered, evenly from all.
pub(crate) const MOST: usize = 1_000;
/// The version of the schema.
const VERSION: &str = "1.0.0";
/// The labels of the zone, the last one first, as all of them here.
static ORIGIN: [&str; 2] = ["local", "clusterset"];

/// An answer, before it is put into a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The result.
    pub code: ResponseCode,
    /// Whether it is this zone's own word.
    pub authoritative: bool,
    /// The records that were asked for.
    pub answers: Vec<Record>,
    /// The SOA, where there are none.
    pub authorities: Vec<Record>,
    /// Addresses of what the answers name: welcome, and left out where there is no room.
    pub additionals: Vec<Record>,
}

impl Answer {
    /// One without records, by someone who does not know.
    #[must_use]
    pub fn bare(code: ResponseCode) -> Self {
        Answer {
            code,
            authoritative: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }
}

/// What a name stands for.
enum Node<'a> {
    /// The zone itself.
    Apex,
    /// `dns-version`.
    Version,
    /// `ns.dns`.
    NameServer,
    /// No records; names below it.
    Between,
    /// A service.
    Service(&'a ServiceKey, &'a Entry),
    /// A port of a service.
    Port(&'a ServiceKey, &'a Entry, &'a NamedPort),
    /// An endpoint of a headless service.
    Instance(&'a Instance),
}

/// Whether a name is of the zone.
#[must_use]
pub(crate) fn is_ours(name: &Name) -> bool {
    below(name).is_some()
}

impl Zone {
    /// Answers a question. `turn` is any number; with another one the same records come in another order.
    #[must_use]
    pub fn answer(&self, name: &Name, kind: RecordType, turn: u32) -> Answer {
        let Some(labels) = below(name).filter(|_| !matches!(kind, RecordType::AXFR | RecordType::IXFR))
        else {
            return Answer::bare(ResponseCode::Refused);
        };
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let key = service(&labels);
        let Some(node) = self.find(&labels, key.as_ref()) else {
            return self.nothing(ResponseCode::NXDomain);
        };
        let mut found = self.records(&node, kind);
        if found.is_empty() {
            return if is_awaited(&node, kind) {
                Answer::bare(ResponseCode::ServFail)
            } else {
                self.nothing(ResponseCode::NoError)
            };
        }
        let turn = usize::try_from(turn).unwrap_or(0) % found.len();
        found.rotate_left(turn);
        Answer {
            code: ResponseCode::NoError,
            authoritative: true,
            answers: found.into_iter().map(|data| Record::from_rdata(name.clone(), TTL, data)).collect(),
            authorities: Vec::new(),
            additionals: self.additionals(&node, kind),
        }
    }

    fn nothing(&self, code: ResponseCode) -> Answer {
        let soa = Record::from_rdata(within(&[]), TTL, RData::SOA(self.soa()));
        Answer { authoritative: true, authorities: vec![soa], ..Answer::bare(code) }
    }

    fn find<'a>(&'a self, labels: &[&str], key: Option<&'a ServiceKey>) -> Option<Node<'a>> {
        match labels {
            [] => Some(Node::Apex),
            ["dns-version"] => Some(Node::Version),
            ["dns"] | ["svc"] => Some(Node::Between),
            ["dns", "ns"] => Some(Node::NameServer),
            ["svc", namespace] => {
                let namespace = Namespace::parse(namespace).ok()?;
                self.has(&namespace).then_some(Node::Between)
            }
            ["svc", _, _, rest @ ..] => {
                let key = key?;
                below_service(key, self.entry(key)?, rest)
            }
            _ => None,
        }
    }

    fn records(&self, node: &Node<'_>, kind: RecordType) -> Vec<RData> {
        if kind == RecordType::ANY {
            // RFC 8482: whoever asks for anything gets something, and whoever is flooded with it little.
            let something = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
            return if matches!(node, Node::Between) { Vec::new() } else { vec![something] };
        }
        match node {
            Node::Between => Vec::new(),
            Node::Apex => match kind {
                RecordType::SOA => vec![RData::SOA(self.soa())],
                RecordType::NS => vec![RData::NS(NS(within(&["dns", "ns"])))],
                _ => Vec::new(),
            },
            Node::Version if kind == RecordType::TXT => vec![RData::TXT(TXT::new(vec![VERSION.to_owned()]))],
            Node::Version => Vec::new(),
            Node::NameServer => addresses(self.nameservers(), kind),
            Node::Instance(instance) => addresses(&instance.addresses, kind),
            Node::Service(key, entry) => of_service(key, entry, kind),
            Node::Port(key, entry, port) if kind == RecordType::SRV => targets(key, entry, &[port]),
            Node::Port(..) => Vec::new(),
        }
    }

    /// The addresses of what the answer names.
    fn additionals(&self, node: &Node<'_>, kind: RecordType) -> Vec<Record> {
        let both = |name: Name, all: &[IpAddr]| -> Vec<Record> {
            all.iter().map(|a| Record::from_rdata(name.clone(), TTL, address(*a))).collect()
        };
        match (node, kind) {
            (Node::Apex, RecordType::NS) => both(within(&["dns", "ns"]), self.nameservers()),
            (Node::Service(key, entry) | Node::Port(key, entry, _), RecordType::SRV) => match &entry.places {
                Places::ClusterSet { own, .. } => both(name_of(key, None), own),
                Places::Headless(instances) => {
                    chosen(instances).flat_map(|i| both(name_of(key, Some(i)), &i.addresses)).collect()
                }
            },
            _ => Vec::new(),
        }
    }

    fn soa(&self) -> SOA {
        // Nobody transfers this zone; what counts is the last number, for how long "there is none" may be kept.
        SOA::new(within(&["dns", "ns"]), within(&["hostmaster"]), self.serial(), 7_200, 1_800, 86_400, TTL)
    }
}

/// Whether the answer is an address that was not given yet. Of a family that will never come there is none, and that is an
/// answer: without it whoever asks for both families could go on with neither.
fn is_awaited(node: &Node<'_>, kind: RecordType) -> bool {
    let Node::Service(_, Entry { places: Places::ClusterSet { awaited, .. }, .. }) = node else {
        return false;
    };
    match kind {
        RecordType::A => awaited.contains(&IpFamily::V4),
        RecordType::AAAA => awaited.contains(&IpFamily::V6),
        _ => false,
    }
}

/// What is at the name of a service and below.
fn below_service<'a>(key: &'a ServiceKey, entry: &'a Entry, rest: &[&str]) -> Option<Node<'a>> {
    match rest {
        [] => Some(Node::Service(key, entry)),
        [one] => {
            let ports = entry.ports.iter().any(|port| protocol(port.protocol) == *one);
            let instances = match &entry.places {
                Places::Headless(instances) => instances.iter().any(|i| i.cluster.as_str() == *one),
                Places::ClusterSet { .. } => false,
            };
            (ports || instances).then_some(Node::Between)
        }
        [first, second] => {
            let named = |p: &&NamedPort| {
                protocol(p.protocol) == *first && second.strip_prefix('_') == Some(p.name.as_str())
            };
            if let Some(port) = entry.ports.iter().find(named) {
                return Some(Node::Port(key, entry, port));
            }
            let Places::Headless(instances) = &entry.places else { return None };
            let order = |i: &Instance| (i.cluster.as_str(), i.host.as_str()).cmp(&(*first, *second));
            instances.binary_search_by(order).ok().map(|at| Node::Instance(&instances[at]))
        }
        _ => None,
    }
}

fn of_service(key: &ServiceKey, entry: &Entry, kind: RecordType) -> Vec<RData> {
    match (kind, &entry.places) {
        (RecordType::SRV, _) => targets(key, entry, &entry.ports.iter().collect::<Vec<_>>()),
        (_, Places::ClusterSet { own, .. }) => addresses(own, kind),
        (_, Places::Headless(instances)) => {
            let all: Vec<IpAddr> = chosen(instances).flat_map(|i| i.addresses.iter().copied()).collect();
            addresses(&all, kind)
        }
    }
}

/// One record for each place and port number: ports that differ in protocol only are one.
fn targets(key: &ServiceKey, entry: &Entry, ports: &[&NamedPort]) -> Vec<RData> {
    let record = |target: &Name, numbers: BTreeSet<u16>| -> Vec<RData> {
        numbers.into_iter().map(|port| RData::SRV(SRV::new(0, 100, port, target.clone()))).collect()
    };
    match &entry.places {
        Places::ClusterSet { .. } => record(&name_of(key, None), ports.iter().map(|p| p.port).collect()),
        Places::Headless(instances) => chosen(instances)
            .flat_map(|instance| {
                let numbers = ports.iter().filter_map(|p| instance.ports.get(&p.name).copied());
                record(&name_of(key, Some(instance)), numbers.collect())
            })
            .collect(),
    }
}

/// The instances that are answered: all of them, or else [`MOST`], the same for every type of record.
fn chosen(instances: &[Instance]) -> impl Iterator<Item = &Instance> {
    let count = instances.len().min(MOST);
    (0..count).map(move |at| &instances[at * instances.len() / count])
}

fn addresses(all: &[IpAddr], kind: RecordType) -> Vec<RData> {
    let mut seen = BTreeSet::new();
    let fits = |a: &&IpAddr| match kind {
        RecordType::A => a.is_ipv4(),
        RecordType::AAAA => a.is_ipv6(),
        _ => false,
    };
    all.iter().filter(fits).filter(|a| seen.insert(**a)).map(|a| address(*a)).collect()
}

fn address(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

/// The labels of a name of the zone below it, in lower case and the last one first; `None` of another zone's.
fn below(name: &Name) -> Option<Vec<String>> {
    let mut labels: Vec<String> =
        name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    labels.reverse();
    labels.starts_with(&ORIGIN.map(str::to_owned)).then(|| labels.split_off(ORIGIN.len()))
}

fn service(labels: &[&str]) -> Option<ServiceKey> {
    let ["svc", namespace, name, ..] = labels else { return None };
    Some(ServiceKey { namespace: Namespace::parse(namespace).ok()?, name: ServiceName::parse(name).ok()? })
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "_tcp",
        Protocol::Udp => "_udp",
        Protocol::Sctp => "_sctp",
    }
}

fn name_of(key: &ServiceKey, instance: Option<&Instance>) -> Name {
    let mut labels = vec!["svc", key.namespace.as_str(), key.name.as_str()];
    labels.extend(instance.iter().flat_map(|i| [i.cluster.as_str(), i.host.as_str()]));
    within(&labels)
}

/// A name of the zone by its labels below it, the last one first.
fn within(labels: &[&str]) -> Name {
    let all = labels.iter().rev().chain(ORIGIN.iter().rev()).map(|label| label.as_bytes());
    // At most 63 for a host, a service and a namespace, and 40 for a cluster, is 255 on the wire with the rest of it.
    Name::from_labels(all)
        .expect("names are made of labels of Kubernetes names, and as long as DNS allows at most")
}
