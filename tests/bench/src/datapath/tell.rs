//! The repetitions as ratios, tables and notes: the median, and the smallest and the largest beside it.

use super::hop::HOPS;
use super::load::Done;
use super::{Args, Load, Repetition, Who, namespace};
use crate::peers::ENVOY;
use crate::report::{Report, Table};

const WHO: [Who; 3] = [Who::Direct, Who::Envoy, Who::Sealane];
const PROXIES: [Who; 2] = [Who::Envoy, Who::Sealane];
/// What "MB" means here.
const MEGABYTE: f64 = 1e6;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// All that was found.
pub(crate) fn report(args: &Args, found: &[Repetition], outside: Option<anyhow::Error>) -> Report {
    let mut report = Report::new("Data path: sidecar, gateway, sidecar");
    report.ratios = ratios(found);
    report.tables = [
        costs(
            found,
            Load::Requests,
            "requests/s",
            1.0,
            &format!("Closed loop, {} clients, 1 KiB answers; CPU in us per request", args.clients),
        ),
        latencies(found, args.rate),
        costs(
            found,
            Load::Paced,
            "requests/s",
            1.0,
            &format!("The same open loop of {}/s; CPU in us per request", args.rate),
        ),
        costs(found, Load::Upload, "Gbit/s", MEGABYTE, "One stream, client to backend; CPU in us per MB"),
        costs(found, Load::Download, "Gbit/s", MEGABYTE, "One stream, backend to client; CPU in us per MB"),
        costs(
            found,
            Load::Connects,
            "connections/s",
            1.0,
            "New connections, each with one request, 16 at a time; CPU in us per connection",
        ),
        memory(found, args.idle),
    ]
    .into_iter()
    .filter(|table| !table.rows.is_empty())
    .collect();
    report.notes = notes(args, outside);
    report
}

fn notes(args: &Args, outside: Option<anyhow::Error>) -> Vec<String> {
    let place = match outside {
        None => "In a network namespace of the run's own".to_owned(),
        Some(why) => format!("In the machine's own network namespace, because none could be made ({why:#})"),
    };
    vec![
        format!("{place}; congestion control of every socket: {}.", namespace::congestion_control()),
        format!(
            "{} as tcp_proxy with mutual TLS, tls_inspector and tcp_proxy at the gateway, --concurrency 1; Sealane's \
             proxies with --workers 1. Both: TLS 1.3, P-256 certificates, AES-128-GCM, no resumption.",
            ENVOY.name()
        ),
        format!(
            "Median of {} repetitions [smallest - largest], {} s a load, targets in turns, new processes in each. \
             Client and backend are one thread each of the benchmark and share the cores with the proxies: rates are \
             those of the whole machine, CPU is that of each process.",
            args.repetitions, args.seconds
        ),
    ]
}

/// What one load showed of one target in each repetition.
fn values(found: &[Repetition], load: Load, who: Who, of: impl Fn(&Done) -> Option<f64>) -> Vec<f64> {
    found.iter().filter_map(|r| r.loads.get(&(load, who)).and_then(&of)).collect()
}

/// Sealane's by Envoy's, each pair of one repetition.
fn beside(found: &[Repetition], load: Load, of: impl Fn(&Done) -> Option<f64>) -> Option<String> {
    let (ours, peer) = (values(found, load, Who::Sealane, &of), values(found, load, Who::Envoy, &of));
    let pairs: Vec<f64> =
        ours.iter().zip(&peer).filter(|(_, peer)| **peer > 0.0).map(|(o, p)| o / p).collect();
    spread(&pairs)
}

fn ratios(found: &[Repetition]) -> Vec<String> {
    let hop = |at: usize| move |done: &Done| done.cost(1.0).get(at).copied();
    let rate = |done: &Done| Some(done.rate());
    let added = |share| move |done: &Done| done.latency.quantile(share).map(|d| d.as_secs_f64());
    let lines = [
        (beside(found, Load::Requests, all), "CPU per request of Envoy's, closed loop (goal: at most 0.67)"),
        (beside(found, Load::Paced, all), "CPU per request of Envoy's, open loop"),
        (beside(found, Load::Requests, rate), "requests per second of Envoy's"),
        (beside(found, Load::Paced, added(0.5)), "p50 of Envoy's, open loop"),
        (beside(found, Load::Paced, added(0.99)), "p99 of Envoy's, open loop"),
        (
            beside(found, Load::Upload, hop(1)),
            "gateway CPU per MB of Envoy's, client to backend (goal: at most 0.25)",
        ),
        (
            beside(found, Load::Download, hop(1)),
            "gateway CPU per MB of Envoy's, backend to client (goal: at most 0.25)",
        ),
        (beside(found, Load::Upload, all), "CPU per MB of Envoy's, all hops, client to backend"),
        (beside(found, Load::Download, all), "CPU per MB of Envoy's, all hops, backend to client"),
        (beside(found, Load::Connects, all), "CPU per new connection of Envoy's"),
        (beside(found, Load::Connects, rate), "new connections per second of Envoy's"),
    ];
    let mut lines: Vec<String> =
        lines.into_iter().filter_map(|(x, of)| x.map(|x| format!("x {x} {of}"))).collect();
    let mib = |bytes: &mut dyn Iterator<Item = u64>| -> Option<String> {
        spread(&bytes.map(|bytes| bytes as f64 / MEBIBYTE).collect::<Vec<_>>())
    };
    let small = mib(&mut found.iter().filter_map(|r| r.small));
    lines.extend(
        small.map(|x| format!("{x} MiB are resident in a fresh sidecar, `sealane-proxy` (goal: below 16)")),
    );
    let fresh = |r: &Repetition| r.memory.get(&Who::Sealane)?.fresh.first().copied();
    let one = mib(&mut found.iter().filter_map(fresh));
    lines.extend(
        one.map(|x| format!("{x} MiB in one of `sealane proxy`, the program that is every component")),
    );
    lines
}

/// The processor time of all hops, for one.
fn all(done: &Done) -> Option<f64> {
    (!done.used.is_empty()).then(|| done.cost(1.0).iter().sum())
}

fn costs(found: &[Repetition], load: Load, what: &str, unit: f64, caption: &str) -> Table {
    let columns = ["", what, "of direct", HOPS[0], HOPS[1], HOPS[2], "all proxies"];
    let mut table = Table::new(caption, &columns);
    // Streams are told in bits.
    let scale = if unit > 1.0 { 8.0 / 1e9 } else { 1.0 };
    let direct = values(found, load, Who::Direct, |done| Some(done.rate()));
    for who in WHO {
        let rates = values(found, load, who, |done| Some(done.rate()));
        let Some(rate) = spread(&rates.iter().map(|r| r * scale).collect::<Vec<_>>()) else { continue };
        let share: Vec<f64> = rates.iter().zip(&direct).map(|(rate, direct)| rate / direct).collect();
        let mut row = vec![format!("{who:?}"), rate, spread(&share).map_or_else(dash, |x| format!("x {x}"))];
        for at in 0..HOPS.len() {
            row.push(
                spread(&values(found, load, who, |d| d.cost(unit).get(at).copied())).unwrap_or_else(dash),
            );
        }
        row.push(spread(&values(found, load, who, |d| all(d).map(|x| x * unit))).unwrap_or_else(dash));
        table.rows.push(row);
    }
    table
}

fn latencies(found: &[Repetition], rate: u32) -> Table {
    let caption = format!("Open loop, {rate}/s on 32 connections, counted from when each was due; in us");
    let mut table = Table::new(&caption, &["", "p50", "p99", "added p50", "added p99"]);
    for who in WHO {
        let at = |who, share| {
            values(found, Load::Paced, who, |d| d.latency.quantile(share).map(|d| d.as_secs_f64() * 1e6))
        };
        let added = |share| -> Vec<f64> {
            at(who, share).iter().zip(&at(Who::Direct, share)).map(|(there, direct)| there - direct).collect()
        };
        let cells = [at(who, 0.5), at(who, 0.99), added(0.5), added(0.99)];
        if !cells[0].is_empty() {
            let cells = cells.iter().map(|cell| spread(cell).unwrap_or_else(dash));
            table.rows.push(std::iter::once(format!("{who:?}")).chain(cells).collect());
        }
    }
    table
}

fn memory(found: &[Repetition], connections: usize) -> Table {
    let caption = format!(
        "Resident memory: MiB after the first request; KiB more for each of {connections} idle connections"
    );
    let fresh = HOPS.map(|hop| format!("{hop} MiB"));
    let each = HOPS.map(|hop| format!("{hop} KiB each"));
    let columns: Vec<&str> =
        std::iter::once("").chain(fresh.iter().chain(&each).map(String::as_str)).collect();
    let mut table = Table::new(&caption, &columns);
    for who in PROXIES {
        let of = |value: &dyn Fn(u64, u64) -> f64, at: usize| -> Option<String> {
            let seen = found.iter().filter_map(|r| r.memory.get(&who));
            let values: Vec<f64> =
                seen.filter_map(|m| Some(value(*m.fresh.get(at)?, *m.idle.get(at)?))).collect();
            spread(&values)
        };
        let fresh = |fresh: u64, _| fresh as f64 / MEBIBYTE;
        let each = |fresh: u64, idle: u64| (idle as f64 - fresh as f64) / 1024.0 / connections.max(1) as f64;
        let cells: Option<Vec<String>> =
            (0..3).map(|at| of(&fresh, at)).chain((0..3).map(|at| of(&each, at))).collect();
        if let Some(cells) = cells {
            table.rows.push(std::iter::once(format!("{who:?}")).chain(cells).collect());
        }
    }
    table
}

fn dash() -> String {
    "-".to_owned()
}

/// The median with the smallest and the largest; of one value that value; of none nothing.
fn spread(values: &[f64]) -> Option<String> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (first, last) = (sorted.first()?, sorted.last()?);
    let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
    let text = figure(median);
    Some(if sorted.len() == 1 { text } else { format!("{text} [{} - {}]", figure(*first), figure(*last)) })
}

/// Three significant digits, or all before the point.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_spread_is_median_and_range() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[0.456]).as_deref(), Some("0.46"));
        assert_eq!(spread(&[30.0, 1.0, 200.4]).as_deref(), Some("30.0 [1.00 - 200]"));
        assert_eq!(spread(&[1.0, 2.0]).as_deref(), Some("1.50 [1.00 - 2.00]"));
    }

    #[test]
    fn ratios_are_of_the_same_repetition() {
        let done = |milliseconds: [u64; 3]| Done {
            count: 1000,
            span: Duration::from_secs(1),
            used: milliseconds.map(Duration::from_millis).into(),
            ..Done::default()
        };
        let repetition = |ours, peer| Repetition {
            loads: [((Load::Requests, Who::Sealane), done(ours)), ((Load::Requests, Who::Envoy), done(peer))]
                .into(),
            ..Repetition::default()
        };
        let found = [repetition([10, 10, 10], [20, 20, 20]), repetition([30, 30, 30], [30, 30, 30])];
        assert_eq!(beside(&found, Load::Requests, all).as_deref(), Some("0.75 [0.50 - 1.00]"));
        let table = costs(&found, Load::Requests, "requests/s", 1.0, "");
        assert_eq!(
            table.rows[1][3..7],
            ["20.0 [10.0 - 30.0]", "20.0 [10.0 - 30.0]", "20.0 [10.0 - 30.0]", "60.0 [30.0 - 90.0]"]
        );
    }
}
