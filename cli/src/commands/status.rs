//! `sealane status`.

use crate::client::StatusClient;
use crate::output::{self, Format, ago, or_dash};
use anyhow::Result;
use sealane_federation::rest::types::{Freshness, Server, Servers, Status};
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Serialize)]
struct Glance {
    status: Status,
    servers: Vec<Server>,
}

/// Shows servers, leader and clusters at a glance, and remembers where the servers are.
///
/// # Errors
/// When no server answers.
pub async fn run(mut client: StatusClient, format: Format) -> Result<()> {
    let status = client.status().await?;
    let Servers { servers, .. } = client.servers().await?;
    client.remember(&servers)?;
    output::print(format, &Glance { status, servers }, |glance| text(&glance.status, &glance.servers))
}

fn text(status: &Status, servers: &[Server]) -> String {
    let clusters: Vec<String> =
        status.clusters.iter().map(|(standing, n)| format!("{n} {standing}")).collect();
    let rows = servers.iter().map(|s| {
        [
            s.id.to_string(),
            or_dash(s.address.as_ref()),
            super::word(&s.role),
            if s.voter { "yes" } else { "no" }.to_owned(),
            or_dash(s.matched),
            s.reachable.map_or("-", |r| if r { "yes" } else { "no" }).to_owned(),
        ]
    });
    let mut text = format!(
        "federation  {} ({})\nrevision    {}\nclusters    {}\nservices    {}\n\n{}",
        status.federation,
        status.trust_domain,
        freshness(&status.freshness),
        if clusters.is_empty() { "none".to_owned() } else { clusters.join(", ") },
        status.services,
        output::table(["server", "address", "role", "voter", "on disk", "reachable"], rows)
    );
    for warning in &status.warnings {
        text.push_str("\nwarning: ");
        text.push_str(warning);
    }
    text
}

/// The revision, and a word of doubt when it may be old.
pub(super) fn freshness(freshness: &Freshness) -> String {
    let doubt = match (freshness.leader, freshness.age_ms) {
        (None, _) => " (no leader: writes wait, this may be old)".to_owned(),
        (_, Some(age)) if age > 5_000 => format!(" ({} old)", ago(Duration::from_millis(age))),
        _ => String::new(),
    };
    format!("{}{doubt}", freshness.revision)
}
