//! Why a view is as it is: every candidate, chosen or not, with its reason. What `explain` shows.

use crate::endpoint::Locality;
use crate::identity::SpiffeId;
use crate::liveness::Liveness;
use crate::name::{ClusterName, EndpointId, ServiceKey};
use crate::time::Revision;
use crate::view::{Candidate, Conflict};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Everything that was weighed for one service and one importer.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceReport {
    /// The service.
    pub service: ServiceKey,
    /// The importer.
    pub importer: ClusterName,
    /// The revision of the state that was weighed.
    pub revision: Revision,
    /// Why the importer does not get the service at all; `None` when it does.
    pub not_imported: Option<NotImported>,
    /// Every exporting cluster, oldest export first.
    pub exports: Vec<ExportReport>,
    /// The conflicts between the exports.
    pub conflicts: Vec<Conflict>,
    /// Every endpoint and gateway of every exporter.
    pub decisions: Vec<Decision>,
}

/// Why a whole view is as it is: one report for every service that anybody exports.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// The reports.
    pub services: BTreeMap<ServiceKey, ServiceReport>,
}

/// Why a cluster does not import a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotImported {
    /// Nobody exports it validly to this cluster.
    NoExport,
    /// The namespace does not exist in the importer (namespace sameness).
    NoNamespace,
    /// The importer's import grant does not cover the namespace.
    NotGranted,
}

/// One exporting cluster in a report.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its place in first-observed order.
    pub observed: u64,
    /// Whether the export counts for this importer; else why not, as a sentence.
    pub counted: Result<(), String>,
    /// The verdict on the cluster, with its evidence.
    pub liveness: Liveness,
}

/// One decision about one place that a connection could go to.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The cluster that has it.
    pub cluster: ClusterName,
    /// What it is.
    pub subject: Subject,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a decision is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An endpoint.
    Endpoint {
        /// Its id.
        id: EndpointId,
        /// Its address.
        address: IpAddr,
        /// Where it is.
        locality: Locality,
        /// Its identity.
        spiffe_id: Option<SpiffeId>,
    },
    /// A gateway, by its address as text.
    Gateway {
        /// `host:port`.
        address: String,
        /// Where it is.
        locality: Locality,
    },
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is in the view.
    Chosen(Candidate),
    /// An endpoint that is reached through the chosen gateways of its cluster.
    BehindGateway,
    /// It is not in the view.
    Rejected(Rejection),
}

/// Why a place is not in a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The endpoint is not ready.
    NotReady,
    /// Its cluster was withdrawn: the lease lapsed and the witnesses outvoted it.
    ClusterWithdrawn,
    /// It has none of the import's ports.
    NoPort,
    /// It is in another network and its cluster has no ready gateway there.
    NoGateway,
    /// The gateway has no ready endpoint behind it, or a weight of zero.
    NoWeight,
    /// The export does not count for this importer (see the report's exports).
    ExportNotCounted,
    /// The exporter published no trust bundle yet, so nobody can verify it.
    NoBundle,
    /// The gateway is in the importer's own network or cluster: endpoints are reached directly.
    SameNetwork,
}

impl Rejection {
    /// A sentence for people.
    #[must_use]
    pub fn message(&self) -> &'static str {
        match self {
            Rejection::NotReady => "the endpoint is not ready",
            Rejection::ClusterWithdrawn => {
                "its cluster is withdrawn: its lease lapsed and more witnesses say down than up"
            }
            Rejection::NoPort => "it serves none of the import's ports",
            Rejection::NoGateway => "it is in another network and its cluster has no ready gateway",
            Rejection::NoWeight => "no ready endpoint is behind it, or its weight is zero",
            Rejection::ExportNotCounted => "the export of its cluster does not count for this importer",
            Rejection::NoBundle => "its cluster published no trust bundle yet",
            Rejection::SameNetwork => "endpoints of this network are reached directly",
        }
    }
}
