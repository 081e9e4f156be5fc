//! Merging exports: the table of KEP-1645.

use crate::compute::merge;
use crate::name::ClusterName;
use crate::service::{
    Export, ExportSpec, InternalTrafficPolicy, Invalid, IpFamily, Port, Protocol, ServiceType,
    SessionAffinity,
};
use crate::testing::{World, export, http, name, port, put, spec};
use crate::view::{Conflict, ConflictField};

/// The exports of c1, c2, … oldest first, merged.
fn merged(specs: &[ExportSpec]) -> (ExportSpec, Vec<Conflict>) {
    let exports: Vec<(ClusterName, Export)> = specs
        .iter()
        .enumerate()
        .map(|(n, spec)| (name(&format!("c{}", n + 1)), export(spec.clone())))
        .collect();
    let borrowed: Vec<_> = exports.iter().map(|(name, export)| (name, export)).collect();
    let merged = merge(&borrowed).unwrap();
    (merged.spec, merged.conflicts)
}

/// Port lists, oldest first; what they merge to; whether they conflict.
type PortCase<'a> = (&'a [&'a [&'a Port]], &'a [&'a Port], bool);
type FamilyCase<'a> = (&'a [&'a [IpFamily]], &'a [IpFamily], bool);
type PropertyCase<'a> = (ConflictField, &'a dyn Fn(&mut ExportSpec));

fn owned(list: &[&Port]) -> Vec<Port> {
    list.iter().map(|port| (*port).clone()).collect()
}

fn ports(lists: &[&[&Port]]) -> (Vec<Port>, bool) {
    let (spec, conflicts) = merged(&lists.iter().map(|list| spec(owned(list))).collect::<Vec<_>>());
    assert!(conflicts.iter().all(|conflict| conflict.field == ConflictField::Port));
    (spec.ports, !conflicts.is_empty())
}

#[test]
fn ports_are_a_union_by_name_and_then_by_number() {
    let (a, b, c) = (port("a", 80), port("b", 81), port("c", 80));
    let (a81, b80, unnamed) = (port("a", 81), port("b", 80), port("", 70));
    let udp = Port { protocol: Protocol::Udp, ..port("u", 80) };
    let table: [PortCase<'_>; 9] = [
        (&[&[&a], &[&a]], &[&a], false),
        (&[&[&a, &b], &[&b, &a]], &[&a, &b], false),
        (&[&[&a], &[&b]], &[&a, &b], true),
        (&[&[&a], &[&a81]], &[&a], true),
        (&[&[&a], &[&c]], &[&a], true),
        (&[&[&a], &[&udp]], &[&a, &udp], true),
        (&[&[&unnamed], &[&a]], &[&unnamed], true),
        (&[&[&a], &[&unnamed]], &[&a], true),
        // By name first: the b of c2 owns its name before it loses its number to a, so the b of c3 is dropped as well.
        (&[&[&a], &[&b80], &[&b]], &[&a], true),
    ];
    for (lists, expected, conflicting) in table {
        assert_eq!(ports(lists), (owned(expected), conflicting), "{lists:?}");
    }
}

#[test]
fn the_oldest_export_wins_and_the_message_names_field_winner_and_count() {
    let plain = spec(vec![port("http", 80)]);
    let mut headless = plain.clone();
    headless.service_type = ServiceType::Headless;
    let exports: Vec<(ClusterName, Export)> = [&plain, &headless, &plain, &headless, &plain]
        .iter()
        .enumerate()
        .map(|(n, spec)| (name(&format!("cluster-{}", n + 1)), export((*spec).clone())))
        .collect();
    let borrowed: Vec<_> = exports.iter().map(|(name, export)| (name, export)).collect();
    let merged = merge(&borrowed).unwrap();
    assert_eq!(merged.spec, plain);
    assert_eq!(merged.oldest, name("cluster-1"));
    let message = "Conflicting type. Using \"ClusterSetIP\" from oldest service export in \"cluster-1\". 2/5 clusters disagree.";
    assert_eq!(merged.conflicts, [Conflict { field: ConflictField::Type, message: message.to_owned() }]);
}

#[test]
fn every_property_has_its_conflict() {
    let plain = spec(vec![port("http", 80)]);
    let table: [PropertyCase<'_>; 9] = [
        (ConflictField::Port, &|s| s.ports[0].app_protocol = Some("http".to_owned())),
        (ConflictField::Type, &|s| s.service_type = ServiceType::Headless),
        (ConflictField::SessionAffinity, &|s| s.session_affinity = SessionAffinity::ClientIp),
        (ConflictField::SessionAffinityConfig, &|s| s.session_affinity_timeout_s = Some(10)),
        (ConflictField::InternalTrafficPolicy, &|s| s.internal_traffic_policy = InternalTrafficPolicy::Local),
        (ConflictField::TrafficDistribution, &|s| s.traffic_distribution = Some("PreferClose".to_owned())),
        (ConflictField::Labels, &|s| drop(s.labels.insert("a".to_owned(), "b".to_owned()))),
        (ConflictField::Annotations, &|s| drop(s.annotations.insert("a".to_owned(), "b".to_owned()))),
        (ConflictField::IpFamily, &|s| s.ip_families.push(IpFamily::V6)),
    ];
    for (field, change) in table {
        let mut other = plain.clone();
        change(&mut other);
        for pair in [[plain.clone(), other.clone()], [other.clone(), plain.clone()]] {
            let (winner, conflicts) = merged(&pair);
            assert_eq!(conflicts.iter().map(|c| c.field).collect::<Vec<_>>(), [field]);
            assert_eq!(winner, pair[0], "{field:?}");
        }
    }
}

#[test]
fn affinity_is_nothing_to_a_headless_import() {
    let mut oldest = spec(vec![]);
    oldest.service_type = ServiceType::Headless;
    let mut other = oldest.clone();
    other.session_affinity = SessionAffinity::ClientIp;
    other.session_affinity_timeout_s = Some(10);
    assert_eq!(merged(&[oldest, other]).1, []);
}

#[test]
fn families_are_those_of_the_oldest_export_that_has_any() {
    let with = |families: &[IpFamily]| ExportSpec { ip_families: families.to_vec(), ..spec(vec![]) };
    let (v4, v6) = (IpFamily::V4, IpFamily::V6);
    let table: [FamilyCase<'_>; 7] = [
        (&[&[v4, v6], &[v6, v4]], &[v4, v6], false),
        (&[&[v4, v6], &[v6]], &[v4, v6], true),
        (&[&[v6, v4], &[v4]], &[v6, v4], true),
        (&[&[v4], &[v4, v6]], &[v4], true),
        (&[&[v4], &[v6]], &[v4], true),
        (&[&[v4, v6], &[]], &[v4, v6], false),
        (&[&[], &[v6]], &[v6], false),
    ];
    for (families, expected, conflicting) in table {
        let (spec, conflicts) = merged(&families.iter().map(|f| with(f)).collect::<Vec<_>>());
        assert_eq!(
            (spec.ip_families.as_slice(), !conflicts.is_empty()),
            (expected, conflicting),
            "{families:?}"
        );
    }
}

#[test]
fn a_conflict_of_families_names_the_export_whose_families_are_used() {
    let with = |families: &[IpFamily]| ExportSpec { ip_families: families.to_vec(), ..spec(vec![]) };
    let (_, conflicts) = merged(&[with(&[]), with(&[IpFamily::V6, IpFamily::V4]), with(&[IpFamily::V4])]);
    let message = "Conflicting ipFamilies. Using \"IPv6,IPv4\" from oldest service export in \"c2\". 1/3 clusters disagree.";
    assert_eq!(conflicts, [Conflict { field: ConflictField::IpFamily, message: message.to_owned() }]);
}

#[test]
fn an_invalid_export_has_no_say() {
    let broken = Export { spec: Err(Invalid::NoService), ..http() };
    let (c1, c2) = (name("c1"), name("c2"));
    assert_eq!(merge(&[(&c1, &broken)]), None);
    let merged = merge(&[(&c1, &broken), (&c2, &http())]).unwrap();
    assert_eq!((merged.oldest, merged.conflicts), (c2, vec![]));
}

#[test]
fn every_constituent_export_is_told_of_the_conflict() {
    let mut world = World::of(&["east", "west", "edge"]);
    world.put("east", vec![put("shop/cart", http())]);
    world.put("west", vec![put("shop/cart", export(spec(vec![port("http", 81)])))]);
    world.put("edge", vec![put("shop/cart", Export { spec: Err(Invalid::NoService), ..http() })]);
    let message = "Conflicting ports. Using \"http 80/TCP\" merged from all service exports, oldest first from the one in \"east\". 1/2 clusters disagree.";
    let conflicts = vec![Conflict { field: ConflictField::Port, message: message.to_owned() }];
    for cluster in ["east", "west"] {
        assert_eq!(super::status(&world, cluster, "shop/cart").conflicts, conflicts, "{cluster}");
    }
    assert_eq!(super::status(&world, "edge", "shop/cart").conflicts, []);
}
