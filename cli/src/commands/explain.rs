//! `sealane explain`: every candidate, chosen or not, and why; and the evidence on each exporter.

use crate::args::ServiceFrom;
use crate::client::StatusClient;
use crate::output::{self, Format, or_dash};
use anyhow::Result;
use sealane_federation::rest::types::{Decision, DecisionOutcome, Explanation};

/// Explains a service as one cluster sees it.
///
/// # Errors
/// When no server answers or there is no such service or cluster.
pub async fn run(client: &StatusClient, asked: &ServiceFrom, format: Format) -> Result<()> {
    let answer = client.explain(&asked.service.to_string(), asked.from.as_str()).await?;
    output::print(format, &answer, text)
}

fn text(e: &Explanation) -> String {
    let mut text = format!(
        "{}/{} as {} sees it at revision {}\n",
        e.namespace,
        e.name,
        e.from,
        super::status::freshness(&e.freshness)
    );
    if let Some(reason) = &e.not_imported {
        text.push_str(&format!("not imported: {reason}\n"));
    }
    text.push_str("\nexporters, oldest first\n");
    for export in &e.exports {
        let counted = if export.counted { "counts" } else { "does not count" };
        let reason = export.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
        text.push_str(&format!(
            "  {} ({}, {counted}{reason}): {}\n",
            export.cluster,
            super::word(&export.standing),
            export.liveness
        ));
        for witness in &export.witnesses {
            let since = witness.since.as_ref().map(|s| format!(" since {s}")).unwrap_or_default();
            text.push_str(&format!(
                "    witness {} says {}{since}\n",
                witness.cluster,
                super::word(&witness.says)
            ));
        }
    }
    for conflict in &e.conflicts {
        text.push_str(&format!("  {}: {}\n", conflict.reason, conflict.message));
    }
    if !e.troubles.is_empty() {
        text.push_str("\nwhat is wrong with it, as the agents of these clusters say\n");
    }
    for trouble in &e.troubles {
        text.push_str(&format!("  {}: {}\n", trouble.cluster, trouble.message));
    }
    text.push_str("\ncandidates\n");
    text.push_str(&output::table(
        ["", "cluster", "what", "address", "tier", "why"],
        e.decisions.iter().map(row),
    ));
    text
}

fn row(d: &Decision) -> [String; 6] {
    let mark = match d.outcome {
        DecisionOutcome::Chosen => "+",
        DecisionOutcome::BehindGateway => "~",
        DecisionOutcome::Rejected => "-",
    };
    [
        mark.to_owned(),
        d.cluster.clone(),
        d.endpoint.clone().unwrap_or_else(|| super::word(&d.kind)),
        d.address.clone(),
        or_dash(d.candidate.as_ref().map(|c| super::word(&c.tier))),
        d.reason.clone(),
    ]
}
