//! `sealane clusters`.

use crate::client::StatusClient;
use crate::output::{self, Format, ago, or_dash};
use anyhow::Result;
use sealane_core::name::ClusterName;
use sealane_federation::rest::types::{Added, Cluster, OneCluster};
use std::time::Duration;

/// All clusters, a line each.
///
/// # Errors
/// When no server answers.
pub async fn all(client: &StatusClient, format: Format) -> Result<()> {
    let clusters = client.clusters().await?;
    output::print(format, &clusters, |answer| {
        let header = [
            "name",
            "standing",
            "lease",
            "since",
            "heard",
            "network",
            "exports",
            "imports",
            "certificate until",
            "view",
        ];
        let members = output::table(header, answer.clusters.iter().map(row));
        match answer.added.is_empty() {
            true => members,
            false => format!("{members}\n\n{}", added(&answer.added)),
        }
    })
}

/// Who may join by tokens of its own issuer.
fn added(added: &[Added]) -> String {
    let row = |a: &Added| {
        let keys = if a.fetched { "fetched".to_owned() } else { format!("{} given", a.keys.len()) };
        [
            a.name.clone(),
            if a.member { "yes" } else { "not yet" }.to_owned(),
            a.issuer.clone().unwrap_or_else(|| "any".to_owned()),
            keys,
            a.subject.clone(),
            a.last_joined.clone().unwrap_or_else(|| "never".to_owned()),
        ]
    };
    output::table(["added", "joined", "issuer", "keys", "subject", "last by a token"], added.iter().map(row))
}

fn row(c: &Cluster) -> [String; 10] {
    let view = c
        .view
        .as_ref()
        .map(|v| if v.error.is_empty() { v.revision.clone() } else { format!("{}!", v.revision) });
    [
        c.name.clone(),
        super::word(&c.standing),
        super::word(&c.lease.state),
        or_dash(c.lease.since_ms.map(since)),
        or_dash(c.last_heard_ms.map(since)),
        c.network.clone(),
        c.exports.to_string(),
        c.imports.to_string(),
        c.certificate_not_after.clone(),
        or_dash(view),
    ]
}

/// Since when a lease is what it is, which is no time that is left.
fn since(ms: u64) -> String {
    format!("{} ago", ago(Duration::from_millis(ms)))
}

fn lease(c: &Cluster) -> String {
    let since = c.lease.since_ms.map(|ms| format!(", since {}", since(ms))).unwrap_or_default();
    format!("{}{since}", super::word(&c.lease.state))
}

/// One cluster, in full.
///
/// # Errors
/// When no server answers or there is no such cluster.
pub async fn one(client: &StatusClient, name: &ClusterName, format: Format) -> Result<()> {
    let answer = client.cluster(name.as_str()).await?;
    output::print(format, &answer, |OneCluster { cluster, .. }| text(cluster))
}

fn text(c: &Cluster) -> String {
    let session = c.session.as_ref().map(|s| {
        let synced = if s.synced { "synced" } else { "not synced yet" };
        let fenced =
            s.fenced.as_ref().map(|f| format!("; shut out {} at {}", f.instance, f.at)).unwrap_or_default();
        let refused = s
            .refused
            .as_ref()
            .map(|r| format!("; refused {} since {}: two agents run under one identity", r.instance, r.at));
        let refused = refused.unwrap_or_default();
        let closed = if s.closed { "; its stream ended" } else { "" };
        format!("{} of {} since {}, {synced}{closed}{fenced}{refused}", s.id, s.instance, s.opened)
    });
    let view = c.view.as_ref().map(|v| format!("{} {}", v.revision, v.error));
    let lines = [
        ("name", format!("{} (id {})", c.name, c.id)),
        ("trust domain", c.trust_domain.clone()),
        ("kube-system UID", or_dash(c.uid.as_ref())),
        ("standing", super::word(&c.standing)),
        ("lease", lease(c)),
        ("session", or_dash(session)),
        ("certificate until", c.certificate_not_after.clone()),
        ("network", c.network.clone()),
        ("imports into", c.interest.join(", ")),
        ("view acknowledged", or_dash(view)),
    ];
    let mut text = String::new();
    for (key, value) in lines {
        text.push_str(&format!("{key:<18} {value}\n"));
    }
    for gateway in &c.gateways {
        let ready = if gateway.ready { "ready" } else { "not ready" };
        text.push_str(&format!(
            "{:<18} {} in {}, weight {}, {ready}\n",
            "gateway", gateway.address, gateway.network, gateway.weight
        ));
    }
    for lane in &c.lanes {
        let time = or_dash(lane.rtt_us.map(|us| format!("{us} us")));
        text.push_str(&format!(
            "{:<18} to {}: {} since {}, {time}\n",
            "lane",
            lane.to,
            super::word(&lane.verdict),
            lane.since
        ));
    }
    for witness in &c.witnesses {
        text.push_str(&format!(
            "{:<18} {} says {}\n",
            "witness",
            witness.cluster,
            super::word(&witness.says)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealane_federation::rest::types::{Lease, LeaseState, Locality, Standing};

    fn cluster(standing: Standing, state: LeaseState, since_ms: Option<u64>) -> Cluster {
        Cluster {
            name: "west".to_owned(),
            id: 2,
            trust_domain: "west.sealane.local".to_owned(),
            uid: None,
            standing,
            lease: Lease { state, since_ms, since: None },
            last_heard_ms: since_ms.map(|_| 900),
            joined: "2026-11-21T11:40:34Z".to_owned(),
            certificate_not_after: "2026-11-28T11:40:34Z".to_owned(),
            session: None,
            network: "west".to_owned(),
            locality: Locality::default(),
            gateways: Vec::new(),
            probes: Vec::new(),
            interest: Vec::new(),
            bundle_sequence: None,
            exports: 0,
            imports: 0,
            lanes: Vec::new(),
            witnesses: Vec::new(),
            view: None,
        }
    }

    #[test]
    fn a_lease_is_told_by_since_when_and_who_never_had_one_is_not_suspected() {
        let row = |standing, state, since| row(&cluster(standing, state, since))[1..5].join("|");
        assert_eq!(row(Standing::Live, LeaseState::Live, Some(240_000)), "live|live|4m ago|0s ago");
        assert_eq!(row(Standing::Joining, LeaseState::Never, None), "joining|never|-|-");
        let text = text(&cluster(Standing::Suspect, LeaseState::Lapsed, Some(7_000)));
        assert!(text.contains("\nlease              lapsed, since 7s ago\n"), "{text}");
    }
}
