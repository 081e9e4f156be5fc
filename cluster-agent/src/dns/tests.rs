//! What names answer, as text: one line for the result, one for each record, its section first.

mod follow;
mod packets;

use super::*;
use crate::catalog::{Catalog, endpoint_id};
use crate::config::tests::{import, name};
use crate::config::{Given, Outbound};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use sealane_core::endpoint::{GatewayAddress, GatewayHost, Locality};
use sealane_core::name::ServiceKey;
use sealane_core::service::{IpFamily, Port, Protocol, ServiceType};
use sealane_core::time::Revision;
use sealane_core::view::{Candidate, Import, Path, Tier};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn port(port: &str, protocol: Protocol, number: u16) -> Port {
    Port { name: name(port), protocol, port: number, app_protocol: None }
}

/// The ports of the conformance suite's service.
fn ports() -> Vec<Port> {
    vec![port("tcp", Protocol::Tcp, 42), port("udp", Protocol::Udp, 42)]
}

pub(super) fn direct(cluster: &str, hostname: Option<&str>, address: &str) -> Candidate {
    let path = Path::Direct {
        id: endpoint_id(&format!("{cluster}/{address}")),
        address: address.parse().unwrap(),
        ports: BTreeMap::from([(name("tcp"), 8042), (name("udp"), 8042)]),
        locality: Locality::default(),
        spiffe_id: None,
        inbound_port: None,
        hostname: hostname.map(name),
    };
    Candidate { cluster: name(cluster), tier: Tier::Remote, path }
}

/// A gateway with endpoints behind it.
pub(super) fn gateway(cluster: &str, host: u8, endpoints: &[(&str, Option<&str>)]) -> Candidate {
    let path = Path::Gateway {
        address: GatewayAddress { host: GatewayHost::Ip(IpAddr::from([10, 9, 0, host])), port: 15443 },
        locality: Locality::default(),
        weights: BTreeMap::from([(name("tcp"), 2)]),
        identities: BTreeSet::new(),
        endpoints: endpoints.iter().map(|(seed, host)| (endpoint_id(seed), host.map(name))).collect(),
    };
    Candidate { cluster: name(cluster), tier: Tier::Remote, path }
}

pub(super) fn outbound(
    service: &str,
    kind: ServiceType,
    ports: Vec<Port>,
    candidates: Vec<Candidate>,
    addresses: &[&str],
) -> (ServiceKey, Arc<Outbound>) {
    let import = Import { service_type: kind, ports, ..Import::clone(&import(service, candidates)) };
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    (name(service), Arc::new(Outbound::of(Arc::new(import), Given::so_far(addresses))))
}

pub(super) fn common(namespaces: &[&str], outbound: Vec<(ServiceKey, Arc<Outbound>)>) -> Arc<Common> {
    let mut common = Common::default();
    common.revision = Revision { generation: 1, index: 7 };
    common.outbound = outbound.into_iter().collect();
    let interest = Arc::new(namespaces.iter().map(|n| name(n)).collect());
    common.catalog = Arc::new(Catalog { interest, ..Catalog::default() });
    Arc::new(common)
}

fn zone(outbound: Vec<(ServiceKey, Arc<Outbound>)>) -> Zone {
    Zone::new(common(&["shop", "empty"], outbound), &["10.0.0.53".parse().unwrap()])
}

/// A service with addresses, a headless one, and what has no names.
fn shop() -> Zone {
    let pets = vec![
        direct("east", Some("pet-0"), "10.1.0.1"),
        direct("east", Some("pet-0"), "fd00:1::1"),
        direct("west", Some("pet-0"), "10.2.0.1"),
        direct("west", None, "10.2.0.2"),
        gateway("south", 1, &[("far", Some("pet-9"))]),
    ];
    let far = vec![gateway("south", 1, &[("far", Some("pet-9"))])];
    let unnamed = vec![port("", Protocol::Tcp, 80)];
    let (own, headless) = (ServiceType::ClusterSetIp, ServiceType::Headless);
    zone(vec![
        outbound("shop/cart", own, ports(), far.clone(), &["127.9.0.7", "fd00:9::7"]),
        outbound("shop/plain", own, unnamed, vec![], &["127.9.0.8"]),
        outbound("shop/waiting", own, ports(), vec![], &[]),
        outbound("shop/pets", headless, ports(), pets, &[]),
        outbound("shop/none", headless, ports(), vec![], &[]),
        outbound("shop/far", headless, ports(), far, &[]),
        outbound("empty/none", headless, ports(), vec![], &[]),
        outbound("elsewhere/cart", own, ports(), vec![], &["127.9.0.9"]),
    ])
}

fn text(answer: &Answer) -> String {
    let mut lines = vec![code(answer.code)];
    let sections = [("an", &answer.answers), ("ns", &answer.authorities), ("ad", &answer.additionals)];
    for (section, records) in sections {
        lines.extend(records.iter().map(|r| format!("{section} {} {} {}", r.name, r.record_type(), r.data)));
    }
    lines.join("\n")
}

fn code(code: ResponseCode) -> String {
    format!("{code:?}")
}

fn ask(zone: &Zone, question: &str) -> String {
    let (name, kind) = question.rsplit_once(' ').unwrap();
    let name = Name::from_labels(name.split('.').map(str::as_bytes)).unwrap();
    let kind = match kind.strip_prefix("TYPE") {
        Some(number) => RecordType::from(number.parse::<u16>().unwrap()),
        None => kind.parse().unwrap(),
    };
    text(&zone.answer(&name, kind, 0))
}

const SOA: &str = "\
ns clusterset.local. SOA ns.dns.clusterset.local. hostmaster.clusterset.local. 7 7200 1800 86400 5";

fn nothing(code: &str) -> String {
    format!("{code}\n{SOA}")
}

#[test]
fn a_service_answers_its_own_addresses() {
    let zone = shop();
    let cart = "cart.shop.svc.clusterset.local";
    assert_eq!(ask(&zone, &format!("{cart} A")), format!("NoError\nan {cart}. A 127.9.0.7"));
    assert_eq!(ask(&zone, &format!("{cart} AAAA")), format!("NoError\nan {cart}. AAAA fd00:9::7"));
    // Two ports share the number: one record.
    let glue = format!("ad {cart}. A 127.9.0.7\nad {cart}. AAAA fd00:9::7");
    assert_eq!(
        ask(&zone, &format!("{cart} SRV")),
        format!("NoError\nan {cart}. SRV 0 100 42 {cart}.\n{glue}")
    );
    assert_eq!(
        ask(&zone, &format!("_udp._udp.{cart} SRV")),
        format!("NoError\nan _udp._udp.{cart}. SRV 0 100 42 {cart}.\n{glue}")
    );
    assert_eq!(ask(&zone, &format!("{cart} TXT")), nothing("NoError"));
    assert_eq!(ask(&zone, &format!("{cart} ANY")), format!("NoError\nan {cart}. HINFO RFC8482 "));
}

#[test]
fn a_headless_service_answers_its_endpoints_and_each_by_its_name() {
    let zone = shop();
    let pets = "pets.shop.svc.clusterset.local";
    assert_eq!(
        ask(&zone, &format!("{pets} A")),
        format!("NoError\nan {pets}. A 10.1.0.1\nan {pets}. A 10.2.0.2\nan {pets}. A 10.2.0.1"),
    );
    assert_eq!(ask(&zone, &format!("{pets} AAAA")), format!("NoError\nan {pets}. AAAA fd00:1::1"));
    let (first, second, third) =
        (format!("pet-0.east.{pets}"), format!("10-2-0-2.west.{pets}"), format!("pet-0.west.{pets}"));
    let glue = format!(
        "ad {first}. A 10.1.0.1\nad {first}. AAAA fd00:1::1\nad {second}. A 10.2.0.2\nad {third}. A 10.2.0.1"
    );
    for owner in [pets.to_owned(), format!("_tcp._tcp.{pets}")] {
        let srv = |target: &str| format!("an {owner}. SRV 0 100 8042 {target}.\n");
        let expected = format!("NoError\n{}{}{}{glue}", srv(&first), srv(&second), srv(&third));
        assert_eq!(ask(&zone, &format!("{owner} SRV")), expected);
    }
    assert_eq!(ask(&zone, &format!("{first} A")), format!("NoError\nan {first}. A 10.1.0.1"));
    assert_eq!(ask(&zone, &format!("{first} AAAA")), format!("NoError\nan {first}. AAAA fd00:1::1"));
    assert_eq!(ask(&zone, &format!("{second} A")), format!("NoError\nan {second}. A 10.2.0.2"));
    assert_eq!(ask(&zone, &format!("{second} AAAA")), nothing("NoError"));
}

#[test]
fn what_is_not_there_is_told_from_what_has_no_such_record() {
    let zone = shop();
    let none = [
        "other.shop.svc",
        "none.shop.svc",
        "far.shop.svc",
        "pet-9.south.far.shop.svc",
        "pet-9.south.pets.shop.svc",
        "south.pets.shop.svc",
        "pet-1.east.pets.shop.svc",
        "east.cart.shop.svc",
        "south.cart.shop.svc",
        "x.pet-0.east.pets.shop.svc",
        "_tcp.plain.shop.svc",
        "_._tcp.plain.shop.svc",
        "_udp._tcp.cart.shop.svc",
        "_sctp.cart.shop.svc",
        "none.empty.svc",
        "empty.svc",
        "cart.elsewhere.svc",
        "elsewhere.svc",
        "x.dns-version",
        "other",
        "x.dns",
        "*.shop.svc",
        "a b.shop.svc",
        "\u{fc}.shop.svc",
    ];
    for kind in ["A", "SRV", "TXT", "ANY", "TYPE65280"] {
        for name in none {
            let question = format!("{name}.clusterset.local {kind}");
            assert_eq!(ask(&zone, &question), nothing("NXDomain"), "{question}");
        }
        for name in
            ["svc", "shop.svc", "dns", "_tcp.cart.shop.svc", "_udp.pets.shop.svc", "east.pets.shop.svc"]
        {
            let question = format!("{name}.clusterset.local {kind}");
            assert_eq!(ask(&zone, &question), nothing("NoError"), "{question}");
        }
    }
    assert_eq!(ask(&zone, "_tcp._tcp.cart.shop.svc.clusterset.local A"), nothing("NoError"));
}

#[test]
fn the_zone_says_who_it_is() {
    let zone = shop();
    let soa = SOA.replacen("ns ", "an ", 1);
    assert_eq!(ask(&zone, "clusterset.local SOA"), format!("NoError\n{soa}"));
    assert_eq!(
        ask(&zone, "clusterset.local NS"),
        "NoError\nan clusterset.local. NS ns.dns.clusterset.local.\nad ns.dns.clusterset.local. A 10.0.0.53",
    );
    assert_eq!(ask(&zone, "clusterset.local A"), nothing("NoError"));
    assert_eq!(ask(&zone, "ns.dns.clusterset.local A"), "NoError\nan ns.dns.clusterset.local. A 10.0.0.53");
    let version = "dns-version.clusterset.local";
    assert_eq!(ask(&zone, &format!("{version} TXT")), format!("NoError\nan {version}. TXT 1.0.0"));
    assert_eq!(ask(&zone, &format!("{version} A")), nothing("NoError"));
    for other in ["local A", "cart.shop.svc.cluster.local A", "clusterset.local.example A", "a A"] {
        assert_eq!(ask(&zone, other), "Refused", "{other}");
    }
    assert_eq!(ask(&zone, "clusterset.local AXFR"), "Refused");
}

#[test]
fn whatever_the_turn_the_records_are_the_same_in_another_order() {
    let zone = shop();
    let pets = Name::from_ascii("Pets.shop.SVC.clusterset.local.").unwrap();
    let turned = |turn| zone.answer(&pets, RecordType::A, turn).answers;
    let first = turned(0);
    for turn in [1, 2, u32::MAX] {
        let mut other = turned(turn);
        other.rotate_right(usize::try_from(turn).unwrap() % first.len());
        assert_eq!(other, first);
    }
    assert_ne!(turned(0), turned(1));
    assert!(first.iter().all(|r| r.name.eq_case(&pets)), "the question's letters");
}

#[test]
fn of_too_many_endpoints_every_type_answers_the_same_ones() {
    let count: u16 = 2_500;
    let both = (0..count).flat_map(|n| {
        let [high, low] = n.to_be_bytes();
        let host = format!("pet-{n}");
        let v4 = direct("west", Some(&host), &format!("10.2.{high}.{low}"));
        [v4, direct("west", Some(&host), &format!("fd00:2::{n:x}"))]
    });
    let pets = outbound("shop/pets", ServiceType::Headless, ports(), both.collect(), &[]);
    let zone = zone(vec![pets]);
    let name = Name::from_ascii("pets.shop.svc.clusterset.local.").unwrap();
    let answers = |kind| zone.answer(&name, kind, 0).answers;
    let v4: Vec<u16> = answers(RecordType::A)
        .iter()
        .map(|r| {
            let octets = r.data.ip_addr().map(|ip| match ip {
                IpAddr::V4(v4) => v4.octets(),
                IpAddr::V6(_) => panic!("{ip}"),
            });
            let [_, _, high, low] = octets.unwrap();
            u16::from_be_bytes([high, low])
        })
        .collect();
    let v6: Vec<u16> = answers(RecordType::AAAA)
        .iter()
        .map(|r| match r.data.ip_addr().unwrap() {
            IpAddr::V6(v6) => v6.segments()[7],
            IpAddr::V4(v4) => panic!("{v4}"),
        })
        .collect();
    assert_eq!(v4.len(), answer::MOST);
    assert_eq!(v4, v6);
    assert_eq!(answers(RecordType::SRV).len(), answer::MOST);
    let thousands: Vec<usize> = [0..1_000, 1_000..2_000, 2_000..2_500]
        .map(|range| v4.iter().filter(|n| range.contains(*n)).count())
        .into();
    assert!(
        thousands.iter().zip([400, 400, 200]).all(|(found, fair)| found.abs_diff(fair) < 40),
        "{thousands:?}"
    );
}

#[test]
fn an_address_that_is_not_given_yet_is_not_said_to_be_none() {
    let zone = shop();
    let waiting = "waiting.shop.svc.clusterset.local";
    assert_eq!(ask(&zone, &format!("{waiting} A")), "ServFail");
    assert_eq!(ask(&zone, &format!("{waiting} AAAA")), "ServFail");
    assert_eq!(ask(&zone, &format!("{waiting} TXT")), nothing("NoError"));
    assert_eq!(
        ask(&zone, &format!("{waiting} SRV")),
        format!("NoError\nan {waiting}. SRV 0 100 42 {waiting}.")
    );
    assert_eq!(
        ask(&zone, "plain.shop.svc.clusterset.local AAAA"),
        nothing("NoError"),
        "it has the other family"
    );
}

#[test]
fn a_family_that_never_comes_is_said_to_be_none() {
    let of = |families: &[IpFamily], given: Given| {
        let import = Import { ip_families: families.to_vec(), ..Import::clone(&import("shop/web", vec![])) };
        let zone = zone(vec![(name("shop/web"), Arc::new(Outbound::of(Arc::new(import), given)))]);
        ["A", "AAAA"].map(|kind| ask(&zone, &format!("web.shop.svc.clusterset.local {kind}")))
    };
    let (v4, v6) = (IpFamily::V4, IpFamily::V6);
    let (unknown, none) = (|| "ServFail".to_owned(), || nothing("NoError"));
    assert_eq!(of(&[], Given::default()), [unknown(), unknown()], "nothing is known");
    assert_eq!(of(&[v6], Given::default()), [none(), unknown()]);
    assert_eq!(of(&[v4, v6], Given::default()), [unknown(), unknown()]);
    let never = Given { addresses: vec![], settled: true };
    assert_eq!(of(&[v6], never), [none(), none()], "this cluster has no such addresses");
    let given = Given::so_far(vec!["10.96.0.7".parse().unwrap()]);
    let one = "NoError\nan web.shop.svc.clusterset.local. A 10.96.0.7".to_owned();
    assert_eq!(of(&[v4, v6], given), [one, none()]);
}

#[test]
fn the_longest_names_are_answered() {
    let long = "a".repeat(63);
    let cluster = "c".repeat(40);
    let service = format!("{long}/{long}");
    let pets = outbound(
        &service,
        ServiceType::Headless,
        ports(),
        vec![direct(&cluster, Some(&long), "10.1.0.1")],
        &[],
    );
    let zone = Zone::new(common(&[&long], vec![pets]), &[]);
    let owner = format!("{long}.{long}.svc.clusterset.local");
    let target = format!("{long}.{cluster}.{owner}");
    assert_eq!(
        ask(&zone, &format!("{owner} SRV")),
        format!("NoError\nan {owner}. SRV 0 100 8042 {target}.\nad {target}. A 10.1.0.1"),
    );
    assert_eq!(ask(&zone, &format!("{target} A")), format!("NoError\nan {target}. A 10.1.0.1"));
}
