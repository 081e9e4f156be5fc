//! What the slices of a run come to: medians with their ranges, and ratios within each turn.

use super::Via;
use super::load::Slice;
use crate::report::Table;
use std::collections::HashMap;

/// What a slice is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cell {
    pub(crate) via: Via,
    pub(crate) clients: usize,
    /// The store's place in the list.
    pub(crate) store: usize,
}

/// The slices of a run.
#[derive(Debug)]
pub(crate) struct Cells {
    stores: Vec<&'static str>,
    slices: HashMap<Cell, Vec<Slice>>,
}

impl Cells {
    /// None yet. The first store is ours.
    pub(crate) fn new(stores: Vec<&'static str>) -> Self {
        Cells { stores, slices: HashMap::new() }
    }

    /// One more.
    pub(crate) fn put(&mut self, cell: Cell, slice: Slice) {
        self.slices.entry(cell).or_default().push(slice);
    }

    fn of(&self, cell: Cell) -> &[Slice] {
        self.slices.get(&cell).map_or(&[], Vec::as_slice)
    }

    /// Ours beside each peer's, a line.
    pub(crate) fn ratios(&self, via: Via, clients: usize) -> Option<String> {
        let ours = self.of(Cell { via, clients, store: 0 });
        let peers = self.stores.iter().enumerate().skip(1).filter_map(|(store, name)| {
            let theirs = self.of(Cell { via, clients, store });
            let ratio = |of: fn(&Slice) -> f64| {
                let pairs = ours.iter().zip(theirs).map(|(o, t)| of(o) / of(t));
                spread(pairs.collect(), 2)
            };
            let rate = ratio(Slice::rate)?;
            let p99 = ratio(|s| millis(s, 0.99))?;
            let cpu = ratio(|s| s.per_thousand(s.servers))?;
            Some(format!("{rate} x the commands/s of {name} at {p99} x its p99 and {cpu} x its server CPU"))
        });
        let peers: Vec<String> = peers.collect();
        let (who, word) = (via.name(), if clients == 1 { "client" } else { "clients" });
        (!peers.is_empty()).then(|| format!("{clients} {word} at {who}: {}", peers.join("; ")))
    }

    /// The figures of all stores.
    pub(crate) fn table(&self, via: Via, clients: &[usize]) -> Table {
        let columns = [
            "clients",
            "store",
            "commands/s",
            "p50 ms",
            "p99 ms",
            "server CPU s per 1,000",
            "client CPU s per 1,000",
        ];
        let mut table = Table::new(&format!("All clients at {}", via.name()), &columns);
        for &clients in clients {
            for (store, name) in self.stores.iter().enumerate() {
                let slices = self.of(Cell { via, clients, store });
                let all = |of: fn(&Slice) -> f64, digits| {
                    spread(slices.iter().map(of).collect(), digits).unwrap_or_else(|| "-".to_owned())
                };
                table.rows.push(vec![
                    clients.to_string(),
                    (*name).to_owned(),
                    all(Slice::rate, 0),
                    all(|s| millis(s, 0.5), 2),
                    all(|s| millis(s, 0.99), 2),
                    all(|s| s.per_thousand(s.servers), 3),
                    all(|s| s.per_thousand(s.clients), 3),
                ]);
            }
        }
        table
    }
}

fn millis(slice: &Slice, share: f64) -> f64 {
    slice.latencies.quantile(share).map_or(f64::NAN, |d| d.as_secs_f64() * 1000.0)
}

/// The median and, where there is more than one, the range.
fn spread(mut values: Vec<f64>, digits: usize) -> Option<String> {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values.first()?, values.last()?);
    let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
    match values.len() {
        1 => Some(format!("{median:.digits$}")),
        _ => Some(format!("{median:.digits$} [{least:.digits$}-{most:.digits$}]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn slice(commands: u64, each: u64) -> Slice {
        let servers = Duration::from_millis(commands);
        let latencies = (0..commands).map(|_| Duration::from_millis(each)).collect();
        Slice { latencies, elapsed: Duration::from_secs(1), servers, clients: servers / 2 }
    }

    #[test]
    fn ratios_are_of_the_same_turn() {
        let mut cells = Cells::new(vec!["ours", "theirs"]);
        for (ours, theirs) in [(200, 100), (400, 100), (300, 300)] {
            cells.put(Cell { via: Via::Leader, clients: 1, store: 0 }, slice(ours, 2));
            cells.put(Cell { via: Via::Leader, clients: 1, store: 1 }, slice(theirs, 4));
        }
        let line = "1 client at the leader: 2.00 [1.00-4.00] x the commands/s of theirs at 0.50 [0.50-0.50] x its p99 \
                    and 1.00 [1.00-1.00] x its server CPU";
        assert_eq!(cells.ratios(Via::Leader, 1).unwrap(), line);
        assert_eq!(cells.ratios(Via::Follower, 1), None);
        let row =
            ["1", "ours", "300 [200-400]", "2.00 [2.00-2.00]", "2.00 [2.00-2.00]", "1.000 [1.000-1.000]"];
        assert_eq!(cells.table(Via::Leader, &[1]).rows[0][..6], row);
    }

    #[test]
    fn a_median_of_an_even_number_lies_between() {
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0], 1).unwrap(), "2.5 [1.0-4.0]");
        assert_eq!(spread(vec![], 1), None);
    }
}
