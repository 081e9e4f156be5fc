use super::*;
use sealane_core::name::{PortName, ServiceAccount, ServiceName};
use sealane_core::service::{IpFamily, Protocol};

fn namespace() -> Namespace {
    Namespace::parse("shop").unwrap()
}

fn slice(service: &str, address: &str, pod: Option<&str>) -> Part {
    let endpoint = SliceEndpoint {
        address: address.parse().unwrap(),
        ready: true,
        hostname: None,
        node: None,
        zone: None,
        pod: pod.map(str::to_owned),
    };
    let port = SlicePort { name: PortName::parse("").unwrap(), protocol: Protocol::Tcp, port: 8080 };
    let slice = Slice {
        service: ServiceName::parse(service).unwrap(),
        family: IpFamily::V4,
        ports: vec![port],
        endpoints: vec![endpoint],
    };
    Part::Slice(SliceKey { namespace: namespace(), name: format!("{service}-1") }, slice)
}

fn pod(name: &str, ip: &str, node: &str) -> Part {
    let pod = Pod {
        uid: None,
        account: ServiceAccount::parse("default").unwrap(),
        ips: vec![ip.parse().unwrap()],
        node: Some(node.to_owned()),
        inbound_port: None,
        network: None,
    };
    Part::Pod(PodKey { namespace: namespace(), name: name.to_owned() }, pod)
}

fn services(names: &[&str]) -> Touched {
    let services = names.iter().map(|n| ServiceKey::parse(&format!("shop/{n}")).unwrap()).collect();
    Touched { services, namespaces: false }
}

#[test]
fn a_change_touches_what_it_can_affect_and_the_same_again_nothing() {
    let mut index = Index::default();
    assert_eq!(index.apply(Change::Put(slice("a", "10.0.0.1", None))), services(&["a"]));
    assert_eq!(index.apply(Change::Put(slice("b", "10.0.0.2", Some("pod-b")))), services(&["b"]));
    assert_eq!(index.apply(Change::Put(slice("b", "10.0.0.2", Some("pod-b")))), services(&[]));
    assert_eq!(index.apply(Change::Put(pod("pod-a", "10.0.0.1", "n1"))), services(&["a"]), "by address");
    assert_eq!(index.apply(Change::Put(pod("pod-b", "10.0.0.9", "n1"))), services(&["b"]), "by name");
    assert_eq!(index.apply(Change::Put(pod("pod-b", "10.0.0.9", "n1"))), services(&[]));
    assert_eq!(index.apply(Change::Put(pod("other", "10.0.0.3", "n1"))), services(&[]));
    let node = || Part::Node("n1".to_owned(), Node::default());
    assert_eq!(index.apply(Change::Put(node())), services(&["a", "b"]));
    assert_eq!(index.apply(Change::Put(node())), services(&[]));
    let mut placed = slice("c", "10.0.0.4", None);
    if let Part::Slice(_, slice) = &mut placed {
        slice.endpoints[0].node = Some("n2".to_owned());
    }
    assert_eq!(index.apply(Change::Put(placed)), services(&["c"]));
    assert_eq!(
        index.apply(Change::Put(Part::Node("n2".to_owned(), Node::default()))),
        services(&["c"]),
        "the endpoint says where it is"
    );
    let moved = index.apply(Change::Put(pod("pod-a", "10.0.0.7", "n1")));
    assert_eq!(moved, services(&["a"]), "it left the address of a's endpoint");
    let gone = Change::Remove(PartKey::Slice(SliceKey { namespace: namespace(), name: "a-1".to_owned() }));
    assert_eq!(index.apply(gone.clone()), services(&["a"]));
    assert_eq!(index.apply(gone), services(&[]));
    assert_eq!(index.slices_of(&ServiceKey::parse("shop/a").unwrap()).count(), 0);
}

#[test]
fn a_selector_selects_by_labels() {
    let part = |labels: &[(&str, &str)]| NamespacePart {
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    };
    let selector: Selector = "team=a, mesh".parse().unwrap();
    assert!(selector.selects(&part(&[("team", "a"), ("mesh", "")])));
    assert!(!selector.selects(&part(&[("team", "b"), ("mesh", "")])));
    assert!(!selector.selects(&part(&[("team", "a")])));
    assert!(Selector::default().selects(&part(&[])));
    assert!("a!=b".parse::<Selector>().is_err());
}
