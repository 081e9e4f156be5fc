//! `compute`: from the state, what one cluster receives, and why. Pure.
//!
//! A view is a map of independent items, each computed on its own; `explain`, the view and the incremental path run
//! the same weighing, so that an explanation can not disagree with what the data plane does.

mod conflicts;
mod exports;
mod imports;
mod peers;
mod places;
mod ports;
mod relation;
mod shares;
#[cfg(test)]
mod tests;
mod weigh;

pub use imports::{Merged, merge};
pub use places::at_home;
pub(crate) use relation::{counts, imports_from, wants};
pub(crate) use weigh::effective;

use crate::identity::ClusterId;
use crate::liveness;
use crate::name::ServiceKey;
use crate::report::{Report, ServiceReport};
use crate::state::{Cluster, State};
use crate::view::{Standing, View, ViewItem, ViewKey};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Computations over one state, which remember the verdicts and relations that many items share.
///
/// Make one for each batch of items of one revision; it lives as long as the state is borrowed.
#[derive(Debug)]
pub struct Computation<'a> {
    state: &'a State,
    standings: RefCell<BTreeMap<ClusterId, Standing>>,
    relations: RefCell<BTreeMap<(ClusterId, ClusterId), bool>>,
}

impl<'a> Computation<'a> {
    /// Over this state.
    #[must_use]
    pub fn new(state: &'a State) -> Self {
        Computation { state, standings: RefCell::default(), relations: RefCell::default() }
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> &'a State {
        self.state
    }

    /// The whole view of a cluster; empty for a stranger.
    #[must_use]
    pub fn view(&self, cluster: ClusterId) -> View {
        let items = self.keys(cluster).into_iter();
        View { items: items.filter_map(|key| Some((key.clone(), self.item(cluster, &key)?))).collect() }
    }

    /// One item of a cluster's view; `None` where the view has no such item.
    #[must_use]
    pub fn item(&self, cluster: ClusterId, key: &ViewKey) -> Option<ViewItem> {
        let cluster = self.state.clusters.get(&cluster)?;
        Some(match key {
            ViewKey::Import(service) => ViewItem::Import(Arc::new(weigh::import(self, cluster, service)?)),
            ViewKey::Export(service) => ViewItem::Export(Arc::new(exports::status(self, cluster, service)?)),
            ViewKey::Peer(name) => ViewItem::Peer(Arc::new(peers::peer(self, cluster, name)?)),
        })
    }

    /// Why a service reaches a cluster as it does; `None` when the cluster is not a member.
    #[must_use]
    pub fn explain(&self, importer: ClusterId, service: &ServiceKey) -> Option<ServiceReport> {
        Some(weigh::report(self, self.state.clusters.get(&importer)?, service))
    }

    /// The reports on every service that anybody exports; empty for a stranger.
    #[must_use]
    pub fn report(&self, importer: ClusterId) -> Report {
        let services = self.state.services().into_iter();
        let reports =
            services.filter_map(|service| Some((service.clone(), self.explain(importer, &service)?)));
        Report { services: reports.collect() }
    }

    /// Every key that the view of a cluster may have.
    fn keys(&self, cluster: ClusterId) -> BTreeSet<ViewKey> {
        let Some(own) = self.state.clusters.get(&cluster) else { return BTreeSet::new() };
        let namespaces = own.interest.iter().filter(|namespace| wants(own, namespace));
        let imports = namespaces.flat_map(|namespace| self.state.services_in(namespace)).map(ViewKey::Import);
        let exports = self.state.services_of(cluster).cloned().map(ViewKey::Export);
        let peers = self.state.by_name.keys().cloned().map(ViewKey::Peer);
        imports.chain(exports).chain(peers).collect()
    }

    /// The store's verdict on a cluster.
    pub(crate) fn standing(&self, cluster: ClusterId) -> Standing {
        if let Some(known) = self.standings.borrow().get(&cluster) {
            return *known;
        }
        let standing = liveness::standing(self.state, cluster);
        self.standings.borrow_mut().insert(cluster, standing);
        standing
    }

    /// Whether one cluster imports anything from another.
    pub(crate) fn imports_from(&self, importer: &Cluster, exporter: ClusterId) -> bool {
        let pair = (importer.id, exporter);
        if let Some(known) = self.relations.borrow().get(&pair) {
            return *known;
        }
        let related = imports_from(self.state, importer, exporter);
        self.relations.borrow_mut().insert(pair, related);
        related
    }
}

/// The whole view of a cluster, with the report on every exported service. Empty for a stranger.
#[must_use]
pub fn compute(state: &State, cluster: ClusterId) -> (View, Report) {
    let computation = Computation::new(state);
    (computation.view(cluster), computation.report(cluster))
}

/// One item of a cluster's view. For many items of one state use [`Computation`].
#[must_use]
pub fn compute_item(state: &State, cluster: ClusterId, key: &ViewKey) -> Option<ViewItem> {
    Computation::new(state).item(cluster, key)
}

/// Why a service reaches a cluster as it does; `None` when the importer is not a member.
#[must_use]
pub fn explain(state: &State, importer: ClusterId, service: &ServiceKey) -> Option<ServiceReport> {
    Computation::new(state).explain(importer, service)
}
