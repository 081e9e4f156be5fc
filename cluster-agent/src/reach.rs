//! Whether a cluster without gateways still answers: the agent's own probes, where no gateway can make them.
//!
//! In one flat network clusters need no gateways, and then nobody would bear witness on a cluster that lost its power.
//! So the agent opens a TCP connection to a few endpoints of each such cluster once a second and closes it again. An
//! answer of any kind, be it a refusal, shows that the cluster is there. Silence is told only of endpoints that answered
//! before: one that a NetworkPolicy hides from the agent is no evidence. What answered is remembered while the cluster is
//! a peer, for a cluster that is withdrawn shows no endpoints any more, and would never be seen to come back.
//!
//! This sees less than a gateway's probe does: a kernel answers for processes that hang, and whoever has the address
//! answers, not whoever has the identity. It can keep a cluster, or let a lease that lapsed count; it routes nothing.

use crate::config::LaneEvent;
use crate::config::{Common, Outbound};
use crate::lanes::{Probe, Reporter};
use crate::view::Held;
use sealane_core::name::ClusterName;
use sealane_core::service::Protocol;
use sealane_core::view::Path;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// The agent, beside the gateways, whose numbers begin at 1.
const SELF: Reporter = Reporter(0);
/// How many endpoints of a cluster are asked.
const TARGETS: usize = 3;
/// The time between two rounds.
const EVERY: Duration = Duration::from_secs(1);
/// How long an endpoint may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How many connections may be opening at once.
const AT_ONCE: usize = 64;

/// The endpoints to ask, by cluster.
pub type Targets = BTreeMap<ClusterName, BTreeSet<SocketAddr>>;

/// What is remembered of each cluster: the endpoints that answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answered(Targets);

impl Answered {
    /// Whom to ask, of what is offered: first those that answered before. Where nothing is offered, those that did.
    #[must_use]
    pub fn targets(&self, offered: &Targets) -> Targets {
        let none = BTreeSet::new();
        let clusters: BTreeSet<&ClusterName> = self.0.keys().chain(offered.keys()).collect();
        let mut targets = Targets::new();
        for cluster in clusters {
            let known = self.0.get(cluster).unwrap_or(&none);
            let chosen = match offered.get(cluster).filter(|offered| !offered.is_empty()) {
                Some(offered) => {
                    let former = offered.iter().filter(|address| known.contains(address));
                    let new = offered.iter().filter(|address| !known.contains(address));
                    former.chain(new).take(TARGETS).copied().collect()
                }
                None => known.clone(),
            };
            targets.insert(cluster.clone(), chosen);
        }
        targets
    }

    /// Forgets clusters that are not asked any more.
    pub fn retain(&mut self, clusters: &BTreeSet<ClusterName>) {
        self.0.retain(|cluster, _| clusters.contains(cluster));
    }

    /// What a round shows of a cluster: with an answer the shortest time in microseconds; `None` where nobody answered
    /// who ever did.
    pub fn judge(&mut self, cluster: &ClusterName, round: &[(SocketAddr, Option<u32>)]) -> Option<Probe> {
        let known = self.0.get(cluster).cloned().unwrap_or_default();
        let answered: BTreeSet<SocketAddr> =
            round.iter().filter(|(_, time)| time.is_some()).map(|(address, _)| *address).collect();
        let result = match round.iter().filter_map(|(_, time)| *time).min() {
            Some(time) => Ok(time),
            None if round.iter().any(|(address, _)| known.contains(address)) => {
                let asked: Vec<String> = round.iter().map(|(address, _)| address.to_string()).collect();
                Err(format!("no endpoint answers ({})", asked.join(", ")))
            }
            None => return None,
        };
        if !answered.is_empty() {
            self.0.insert(cluster.clone(), answered);
        }
        Some(Probe { cluster: cluster.clone(), result })
    }
}

/// Whom imports offer of the clusters that have no gateway to probe: a few endpoints of each, by their TCP ports.
#[must_use]
pub fn offered(held: &Held, common: &Common) -> Targets {
    let peers = held.peers().filter(|peer| peer.probes.is_empty());
    let mut targets: Targets = peers.map(|peer| (peer.name.clone(), BTreeSet::new())).collect();
    for outbound in common.outbound.values() {
        for (cluster, address) in endpoints(outbound) {
            // A few more than are asked, so that one that goes is replaced by one that is known.
            if let Some(found) = targets.get_mut(cluster)
                && found.len() < 2 * TARGETS
            {
                found.insert(address);
            }
        }
    }
    targets
}

fn endpoints(outbound: &Outbound) -> impl Iterator<Item = (&ClusterName, SocketAddr)> {
    let import = &outbound.import;
    import.candidates.iter().filter_map(|candidate| {
        let Path::Direct { address, ports, inbound_port, .. } = &candidate.path else { return None };
        let tcp = import.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        let number = inbound_port.or_else(|| tcp.filter_map(|port| ports.get(&port.name)).next().copied())?;
        Some((&candidate.cluster, SocketAddr::new(*address, number)))
    })
}

/// Asks once a second, until `stop`.
pub async fn keep_asking(
    held: watch::Receiver<Arc<Held>>,
    common: watch::Receiver<Option<Arc<Common>>>,
    lanes: mpsc::Sender<LaneEvent>,
    stop: CancellationToken,
) {
    let (mut answered, room) = (Answered::default(), Arc::new(Semaphore::new(AT_ONCE)));
    let mut rounds = interval(EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rounds.tick() => {}
        }
        let Some(known) = common.borrow().clone() else { continue };
        let offered = offered(&held.borrow().clone(), &known);
        answered.retain(&offered.keys().cloned().collect());
        let mut asking = JoinSet::new();
        for (cluster, targets) in answered.targets(&offered) {
            for target in targets {
                let (cluster, room) = (cluster.clone(), room.clone());
                asking.spawn(async move { (cluster, target, ask(target, &room).await) });
            }
        }
        let Some(all) = stop.run_until_cancelled(asking.join_all()).await else { return };
        let mut by_cluster: BTreeMap<ClusterName, Vec<(SocketAddr, Option<u32>)>> = BTreeMap::new();
        for (cluster, target, time) in all {
            by_cluster.entry(cluster).or_default().push((target, time));
        }
        let judged = by_cluster.iter().filter_map(|(cluster, round)| answered.judge(cluster, round));
        let probes: Vec<Probe> = judged.collect();
        if !probes.is_empty() && lanes.send(LaneEvent::Report(SELF, probes)).await.is_err() {
            return;
        }
    }
}

/// How long the answer took in microseconds; `None` when there was none.
async fn ask(target: SocketAddr, room: &Semaphore) -> Option<u32> {
    let _place = room.acquire().await.ok()?;
    let began = Instant::now();
    let answered = match timeout(ANSWER, TcpStream::connect(target)).await {
        Ok(Ok(_)) => true,
        // Somebody at that address refused.
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        Err(_) => false,
    };
    answered.then(|| u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn west() -> ClusterName {
        "west".parse().unwrap()
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn offered(ports: &[u16]) -> Targets {
        Targets::from([(west(), ports.iter().map(|port| at(*port)).collect())])
    }

    #[test]
    fn silence_counts_only_where_there_was_an_answer() {
        let mut answered = Answered::default();
        assert_eq!(answered.judge(&west(), &[(at(1), None), (at(2), None)]), None);
        let heard = answered.judge(&west(), &[(at(1), None), (at(2), Some(70)), (at(3), Some(50))]);
        assert_eq!(heard, Some(Probe { cluster: west(), result: Ok(50) }));
        // Those that answered are other ones now, and hidden: no evidence.
        assert_eq!(answered.judge(&west(), &[(at(7), None)]), None);
        let silent = answered.judge(&west(), &[(at(2), None), (at(3), None)]).unwrap();
        assert_eq!(silent.result, Err("no endpoint answers (10.0.0.1:2, 10.0.0.1:3)".to_owned()));
    }

    #[test]
    fn who_answered_is_asked_first_and_when_nothing_is_offered_any_more() {
        let mut answered = Answered::default();
        assert_eq!(answered.targets(&offered(&[1, 2, 3, 4])), offered(&[1, 2, 3]));
        answered.judge(&west(), &[(at(4), Some(9)), (at(1), None)]);
        assert_eq!(answered.targets(&offered(&[1, 2, 3, 4])), offered(&[1, 2, 4]));
        assert_eq!(answered.targets(&offered(&[])), offered(&[4]));
        answered.retain(&BTreeSet::new());
        assert_eq!(answered.targets(&Targets::new()), Targets::new());
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer() {
        let room = Semaphore::new(1);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(ask(address, &room).await.is_some());
        drop(listener);
        assert!(ask(address, &room).await.is_some());
    }
}
