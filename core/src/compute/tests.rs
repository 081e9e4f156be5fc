//! What a cluster receives, and why. Whole values, by real commands.

mod merging;
mod paths;
mod standing;

use crate::command::{CatalogChange, RefusalCode};
use crate::compute::{compute, compute_item};
use crate::identity::ClusterId;
use crate::report::NotImported;
use crate::service::{Export, Invalid};
use crate::testing::{World, endpoint, http, interest, key, name, put, put_endpoints};
use crate::view::{ExportStatus, View, ViewItem, ViewKey};
use std::collections::BTreeSet;

fn status(world: &World, cluster: &str, service: &str) -> ExportStatus {
    match compute_item(&world.state, world.id(cluster), &ViewKey::Export(key(service))) {
        Some(ViewItem::Export(status)) => (*status).clone(),
        other => panic!("{other:?}"),
    }
}

fn names(names: &[&str]) -> BTreeSet<crate::name::ClusterName> {
    names.iter().map(|n| name(n)).collect()
}

/// West exports `shop/cart` with one endpoint.
fn cart(members: &[&str]) -> World {
    let mut world = World::of(members);
    world.put("west", vec![put("shop/cart", http()), put_endpoints("shop/cart", vec![endpoint("west", 1)])]);
    world
}

#[test]
fn an_import_exists_while_one_export_does() {
    let mut world = cart(&["east", "west"]);
    world.put("east", vec![put("shop/cart", http())]);
    for cluster in ["east", "west"] {
        assert_eq!(world.import(cluster, "shop/cart").unwrap().clusters, names(&["east", "west"]));
    }
    world.put("west", vec![CatalogChange::RemoveExport { service: key("shop/cart") }]);
    assert_eq!(world.import("west", "shop/cart").unwrap().clusters, names(&["east"]));
    world.put("east", vec![CatalogChange::RemoveExport { service: key("shop/cart") }]);
    assert_eq!(world.import("east", "shop/cart"), None);
}

#[test]
fn an_invalid_export_imports_nothing_and_says_why() {
    let mut world = World::of(&["east", "west"]);
    for (invalid, message) in [
        (Invalid::NoService, "NoService: there is no Service shop/cart"),
        (
            Invalid::InvalidServiceType,
            "InvalidServiceType: Service shop/cart is of a type that can not be exported (ExternalName)",
        ),
    ] {
        let export = Export { spec: Err(invalid), ..http() };
        world.put("west", vec![put("shop/cart", export)]);
        assert_eq!(world.import("east", "shop/cart"), None);
        let refusal = status(&world, "west", "shop/cart").ready.unwrap_err();
        assert_eq!((refusal.code, refusal.message.as_str()), (RefusalCode::Invalid, message));
        assert_eq!(status(&world, "west", "shop/cart").importers, names(&[]));
    }
}

#[test]
fn a_cluster_gets_nothing_of_a_namespace_that_it_does_not_have() {
    let mut world = cart(&["east", "west"]);
    let report =
        |world: &World| crate::compute::explain(&world.state, world.id("east"), &key("shop/cart")).unwrap();
    assert_eq!(report(&world).not_imported, None);
    world.put("east", vec![interest(&["bank"])]);
    assert_eq!(world.import("east", "shop/cart"), None);
    assert_eq!(world.peer("east", "west"), None);
    assert_eq!(report(&world).not_imported, Some(NotImported::NoNamespace));
    assert_eq!(
        report(&world).exports[0].counted,
        Err("cluster east does not import into namespace shop: there is none, or its labels keep it out"
            .to_owned())
    );
    assert_eq!(status(&world, "west", "shop/cart").importers, names(&[]));
}

#[test]
fn an_export_may_name_its_importers() {
    let mut world = cart(&["east", "edge", "west"]);
    let export = Export { importers: Some(names(&["edge"])), ..http() };
    world.put("west", vec![put("shop/cart", export)]);
    assert_eq!(world.import("east", "shop/cart"), None);
    assert!(world.import("edge", "shop/cart").is_some());
    assert!(world.import("west", "shop/cart").is_some(), "its own cluster always imports it");
    assert_eq!(status(&world, "west", "shop/cart").importers, names(&["edge"]));
    let report = crate::compute::explain(&world.state, world.id("east"), &key("shop/cart")).unwrap();
    assert_eq!(report.not_imported, Some(NotImported::NoExport));
    let why = "cluster west lets only named clusters import it, and east is not among them";
    assert_eq!(report.exports[0].counted, Err(why.to_owned()));
}

#[test]
fn bundles_go_to_partners_and_to_nobody_else() {
    let mut world = cart(&["east", "west", "idle"]);
    world.put("idle", vec![interest(&[])]);
    let peers = |cluster: &str| {
        let (view, _) = compute(&world.state, world.id(cluster));
        view.items.keys().filter(|k| matches!(k, ViewKey::Peer(_))).cloned().collect::<Vec<_>>()
    };
    assert_eq!(peers("east"), [ViewKey::Peer(name("west"))]);
    assert_eq!(peers("west"), [ViewKey::Peer(name("east"))]);
    assert_eq!(peers("idle"), []);
    let (east, west) = (world.peer("east", "west").unwrap(), world.peer("west", "east").unwrap());
    assert_eq!((east.exports_to_us, east.imports_from_us), (true, false));
    assert_eq!((west.exports_to_us, west.imports_from_us), (false, true));
    assert_eq!(east.bundle.as_deref(), Some(&crate::testing::bundle("west", 1)));
}

#[test]
fn a_stranger_has_no_view() {
    let world = cart(&["east", "west"]);
    let (view, report) = compute(&world.state, ClusterId(99));
    assert_eq!((view, report.services.len()), (View::default(), 0));
}

#[test]
fn a_removed_cluster_is_in_nobodys_view() {
    let mut world = cart(&["east", "west"]);
    world.remove("west");
    let (view, report) = compute(&world.state, world.id("east"));
    assert_eq!((view, report.services.len()), (View::default(), 0));
}
