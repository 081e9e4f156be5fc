use super::*;
use crate::consensus::machine::StateMachine;
use sealane_core::command::{Action, AdminAction, CatalogChange, Command};
use sealane_core::compute::compute;
use sealane_core::identity::{FederationId, InstanceId, Principal, SessionId};
use sealane_core::name::{ClusterName, Namespace, ServiceAccount, ServiceKey, TrustDomain};
use sealane_core::service::{Export, Invalid};
use sealane_core::state::{Grant, Limits, TokenScope};
use sealane_core::time::Millis;
use sealane_core::view::ViewItem;
use sealane_proto::Wire;

/// A machine that is driven by commands, and the publisher that follows it.
struct Bench {
    machine: Machine,
    publisher: Publisher,
    index: u64,
    sequences: BTreeMap<u64, u64>,
}

impl Bench {
    fn new(clusters: u64) -> Self {
        let machine = Machine::restore(std::iter::empty()).unwrap();
        let publisher = Publisher::new(machine.clone());
        let mut bench = Bench { machine, publisher, index: 0, sequences: BTreeMap::new() };
        let trust_domain = TrustDomain::parse("fed").unwrap();
        bench.apply(
            None,
            Action::Found { federation: FederationId([1; 16]), trust_domain, limits: Limits::default() },
        );
        (1..=clusters).for_each(|n| bench.join(n));
        bench.publish();
        bench
    }

    fn apply(&mut self, principal: Option<Principal>, action: Action) {
        self.index += 1;
        let command = Command { min_version: 1, at: Millis(self.index), principal, action };
        self.machine.apply(self.index, 1, &command.encode()).unwrap();
    }

    fn publish(&self) {
        self.publisher.advance(self.machine.clone());
    }

    fn name(n: u64) -> ClusterName {
        ClusterName::parse(&format!("c{n}")).unwrap()
    }

    fn join(&mut self, n: u64) {
        let byte = u8::try_from(n).unwrap();
        let trust_domain = TrustDomain::parse(&format!("c{n}.fed")).unwrap();
        let scope = TokenScope::Cluster {
            name: Self::name(n),
            trust_domain,
            exports: Grant::all(),
            imports: Grant::all(),
        };
        let action = AdminAction::CreateToken { hash: [byte; 32], scope, expires: Millis(u64::MAX) };
        self.admin(byte, action);
        self.apply(None, Action::Join { token: [byte; 32], key: [byte; 32], not_after: Millis(u64::MAX) });
        let (cluster, session, instance) = (ClusterId(n), SessionId([byte; 16]), InstanceId([byte; 16]));
        self.apply(
            Some(Principal::Agent(Self::name(n))),
            Action::OpenSession { cluster, session, instance, uid: None },
        );
        self.write(n, CatalogChange::PutInterest { namespaces: [Namespace::parse("shop").unwrap()].into() });
    }

    fn admin(&mut self, key: u8, action: AdminAction) {
        let admin = Principal::Admin(ServiceAccount::parse("root").unwrap());
        self.apply(Some(admin), Action::Admin { key: [key; 16], action });
    }

    fn write(&mut self, n: u64, change: CatalogChange) {
        let sequence = self.sequences.entry(n).or_default();
        *sequence += 1;
        let (cluster, session) = (ClusterId(n), SessionId([u8::try_from(n).unwrap(); 16]));
        let action = Action::Catalog { cluster, session, sequence: *sequence, changes: vec![change] };
        self.apply(Some(Principal::Agent(Self::name(n))), action);
    }

    fn export(&mut self, n: u64, service: &str) {
        let export = Export { spec: Err(Invalid::NoService), importers: None, created: Millis(0) };
        let service = ServiceKey::parse(service).unwrap();
        self.write(n, CatalogChange::PutExport { service, export });
    }

    fn truth(&self, n: u64) -> BTreeMap<ViewKey, ViewItem> {
        compute(&self.machine.state, ClusterId(n)).0.items
    }
}

/// Everything that a watcher is sent now, laid over what it holds.
fn drain(watcher: &mut Watcher, items: &mut BTreeMap<ViewKey, ViewItem>) {
    while let Some(kind) = watcher.pull().unwrap() {
        let Kind::Delta(delta) = kind else { continue };
        for key in delta.deletes {
            items.remove(&ViewKey::from_wire(key).unwrap());
        }
        for item in delta.upserts {
            let item = ViewItem::from_wire(item).unwrap();
            let key = match &item {
                ViewItem::Import(import) => ViewKey::Import(import.service.clone()),
                ViewItem::Export(export) => ViewKey::Export(export.service.clone()),
                ViewItem::Peer(peer) => ViewKey::Peer(peer.name.clone()),
            };
            items.insert(key, item);
        }
    }
}

#[test]
fn a_watcher_holds_what_compute_says_after_every_change_and_after_a_gap() {
    let mut bench = Bench::new(3);
    let mut watcher = bench.publisher.watch(ClusterId(1)).unwrap();
    watcher.restart(BTreeMap::new()).unwrap();
    let mut items = BTreeMap::new();
    for step in 0..6_u64 {
        bench.export(1 + step % 3, &format!("shop/s{}", step / 2));
        bench.publish();
        drain(&mut watcher, &mut items);
        assert_eq!(items, bench.truth(1), "step {step}");
    }
    // A snapshot replaced the machine: its journal says nothing of what lies between.
    bench.export(1, "shop/late");
    bench.machine = Machine::restore(bench.machine.records().map(Ok)).unwrap();
    bench.admin(99, AdminAction::RemoveCluster { name: Bench::name(2) });
    bench.publish();
    drain(&mut watcher, &mut items);
    assert_eq!(items, bench.truth(1));
    assert!(items.contains_key(&ViewKey::Export(ServiceKey::parse("shop/late").unwrap())));
}

#[tokio::test]
async fn a_watcher_wakes_for_its_own_view_only_and_ends_with_its_cluster() {
    let mut bench = Bench::new(2);
    let (mut one, mut two) =
        (bench.publisher.watch(ClusterId(1)).unwrap(), bench.publisher.watch(ClusterId(2)).unwrap());
    for watcher in [&mut one, &mut two] {
        watcher.restart(BTreeMap::new()).unwrap();
        drain(watcher, &mut BTreeMap::new());
    }
    bench.export(1, "other/x");
    bench.publish();
    one.changed().await.unwrap();
    assert!(!two.changed.has_changed().unwrap(), "an export that it does not import is none of its business");
    assert_eq!(bench.publisher.counts().watchers, 2);
    bench.admin(99, AdminAction::RemoveCluster { name: Bench::name(2) });
    bench.publish();
    assert_eq!(two.changed().await, Err(NotMember));
    assert_eq!(two.pull(), Err(PullError::NotMember(NotMember)));
    assert_eq!(bench.publisher.watch(ClusterId(2)).err(), Some(NotMember));
    drop(two);
    assert_eq!(bench.publisher.counts().watchers, 1);
}
