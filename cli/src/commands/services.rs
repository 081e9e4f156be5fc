//! `sealane services` and `sealane endpoints`.

use crate::args::ServiceFrom;
use crate::client::StatusClient;
use crate::output::{self, Format, or_dash};
use anyhow::Result;
use sealane_core::name::ServiceKey;
use sealane_federation::rest::types::{Candidate, CandidatePath, Endpoints, OneService, Service};

/// All services, a line each.
///
/// # Errors
/// When no server answers.
pub async fn all(client: &StatusClient, format: Format) -> Result<()> {
    let services = client.services().await?;
    output::print(format, &services, |answer| {
        let header = ["service", "type", "ports", "exported by (ready/all)", "imported by", "conflicts"];
        output::table(header, answer.services.iter().map(row))
    })
}

fn row(s: &Service) -> [String; 6] {
    let export = |e: &sealane_federation::rest::types::Export| match &e.reason {
        None => format!("{} {}/{}", e.cluster, e.ready, e.endpoints),
        Some(reason) => format!("{} ({reason})", e.cluster),
    };
    let conflicts: Vec<&str> = s.conflicts.iter().map(|c| c.reason.as_str()).collect();
    [
        format!("{}/{}", s.namespace, s.name),
        or_dash(s.service_type.as_ref()),
        ports(s),
        s.exports.iter().map(export).collect::<Vec<_>>().join(", "),
        s.importers.join(","),
        if conflicts.is_empty() { "-".to_owned() } else { conflicts.join(",") },
    ]
}

fn ports(s: &Service) -> String {
    s.ports.iter().map(|p| format!("{}/{}", p.port, p.protocol)).collect::<Vec<_>>().join(",")
}

/// One service, in full.
///
/// # Errors
/// When no server answers or there is no such service.
pub async fn one(client: &StatusClient, service: &ServiceKey, format: Format) -> Result<()> {
    let answer = client.service(&service.to_string()).await?;
    output::print(format, &answer, |OneService { service, .. }| {
        let rows = service.exports.iter().map(|e| {
            [
                e.cluster.clone(),
                if e.valid { "yes".to_owned() } else { format!("no: {}", or_dash(e.reason.as_ref())) },
                format!("{}/{}", e.ready, e.endpoints),
                e.observed.to_string(),
                e.changed.clone(),
            ]
        });
        let table = output::table(["exported by", "valid", "ready", "age order", "changed at"], rows);
        let conflicts: String =
            service.conflicts.iter().map(|c| format!("\n{}: {}", c.reason, c.message)).collect();
        format!(
            "{}/{}  {}  {}\nimported by {}\n\n{table}{conflicts}",
            service.namespace,
            service.name,
            or_dash(service.service_type.as_ref()),
            ports(service),
            service.importers.join(", ")
        )
    })
}

/// Where a cluster's connections to a service can go.
///
/// # Errors
/// When no server answers or there is no such service or cluster.
pub async fn endpoints(client: &StatusClient, asked: &ServiceFrom, format: Format) -> Result<()> {
    let answer = client.endpoints(&asked.service.to_string(), asked.from.as_str()).await?;
    output::print(format, &answer, |endpoints: &Endpoints| {
        if endpoints.candidates.is_empty() {
            return format!("no candidate: see `sealane explain {} --from {}`", asked.service, asked.from);
        }
        let header = ["tier", "cluster", "path", "address", "ports", "identities"];
        output::table(header, endpoints.candidates.iter().map(candidate))
    })
}

fn candidate(c: &Candidate) -> [String; 6] {
    let ports = c.ports.iter().map(|(name, n)| match c.path {
        CandidatePath::Direct => format!("{}:{n}", if name.is_empty() { "-" } else { name }),
        CandidatePath::Gateway => format!("{} weight {n}", if name.is_empty() { "-" } else { name }),
    });
    [
        super::word(&c.tier),
        c.cluster.clone(),
        super::word(&c.path),
        c.address.clone(),
        ports.collect::<Vec<_>>().join(","),
        c.identities.join(","),
    ]
}
