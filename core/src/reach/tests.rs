//! What an importer is told of endpoints that it can not reach.

use super::*;
use crate::command::CatalogChange;
use crate::service::Export;
use crate::testing::{World, endpoint, export, gateway, http, name, port, put, put_endpoints, spec};

/// East imports `shop/cart`, which west exports so, from another network.
fn world(export: Export, weight: u32) -> World {
    let mut world = World::of(&["east", "edge", "west"]);
    let doors = CatalogChange::PutGateways { gateways: vec![gateway("west", 1, weight)] };
    world.put(
        "west",
        vec![put("shop/cart", export), put_endpoints("shop/cart", vec![endpoint("west", 1)]), doors],
    );
    world
}

fn told(world: &World) -> Option<OutOfReach> {
    out_of_reach(&world.import("east", "shop/cart").unwrap())
}

#[test]
fn a_missing_gateway_and_a_missing_port_are_told_with_the_way_out() {
    assert_eq!(told(&world(http(), 1)), None, "the gateway leads there");
    let mut world = world(http(), 0);
    let gateway = "west: in another network, and without a ready gateway; give it a gateway with an address that this \
                   cluster reaches, or both clusters one network";
    let expected = OutOfReach {
        reason: "NoGateway".to_owned(),
        message: format!("no ready endpoint is reached from this cluster. {gateway}"),
    };
    assert_eq!(told(&world), Some(expected));

    let other = export(spec(vec![port("http", 81)]));
    world.put("edge", vec![put("shop/cart", other), put_endpoints("shop/cart", vec![endpoint("edge", 1)])]);
    let port = "edge: its endpoints serve none of the import's ports (http 80/TCP); let its Service have one of them, \
                by name, protocol and number, and its pods the target port";
    let expected = OutOfReach {
        reason: "NoGateway,NoPort".to_owned(),
        message: format!("no ready endpoint is reached from this cluster. {gateway}. {port}"),
    };
    assert_eq!(told(&world), Some(expected));
    let import = world.import("east", "shop/cart").unwrap();
    assert_eq!(
        import.unreached,
        [(name("edge"), Unreached::NoPort), (name("west"), Unreached::NoGateway)].into()
    );
}

#[test]
fn one_endpoint_that_is_reached_is_enough() {
    let mut world = world(http(), 0);
    world.put("east", vec![put("shop/cart", http()), put_endpoints("shop/cart", vec![endpoint("east", 1)])]);
    let import = world.import("east", "shop/cart").unwrap();
    assert_eq!(
        (import.candidates.len(), &import.unreached),
        (1, &[(name("west"), Unreached::NoGateway)].into())
    );
    assert_eq!(told(&world), None);
}

#[test]
fn where_no_endpoint_is_ready_nothing_is_out_of_reach() {
    let mut world = world(http(), 0);
    let mut tired = endpoint("west", 1);
    tired.ready = false;
    world.put("west", vec![put_endpoints("shop/cart", vec![tired])]);
    let import = world.import("east", "shop/cart").unwrap();
    assert_eq!((import.candidates, import.unreached), (vec![], [].into()));
}
