//! Whether a cluster without gateways still answers: the agent's own probes, where no gateway can make them.
//!
//! In one flat network clusters need no gateways, and then nobody would bear witness on a cluster that lost its power.
//! So the agent opens a TCP connection to a few endpoints of each such cluster once a second, ends its side at once
//! (RFC 9293, section 3.6: a half-closed connection) and waits until the other side says or ends something. A kernel
//! takes connections for processes that hang, but only a process that runs ends one. An answer of any kind, be it a
//! refusal, shows that the cluster is there. Silence is told only where an endpoint answered before: one that a
//! NetworkPolicy always hid from the agent, or whose program never ends a connection, is no evidence. And it is told only
//! when others of the cluster, of as many Services as there are, are silent too. What answered is remembered, on disk too,
//! while the cluster is a peer: a cluster that is withdrawn shows no endpoints any more, and would never be seen to come
//! back.
//!
//! This sees less than a gateway's probe does: whoever has the address answers, not whoever has the identity. What it
//! finds is a lane like any other: it keeps a cluster, lets a lease that lapsed count, and makes this cluster prefer others.

use crate::config::LaneEvent;
use crate::config::{Common, Outbound};
use crate::lanes::{Probe, Reporter};
use crate::state::StateDir;
use crate::view::Held;
use sealane_core::name::ClusterName;
use sealane_core::service::Protocol;
use sealane_core::view::Path;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
/// How long an endpoint may take to take the connection, and then to end it.
const ANSWER: Duration = Duration::from_secs(1);
/// How many connections may be opening at once.
const AT_ONCE: usize = 64;

/// How many endpoints are asked at once beside those where none of a cluster answers.
const FRESH: usize = 12;
/// How many of a cluster are known in all.
const OFFERED: usize = 64;

/// The endpoints to ask, by cluster, each once.
pub type Targets = BTreeMap<ClusterName, Vec<SocketAddr>>;

/// What is remembered of each cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answered {
    /// The endpoints that answered, [`TARGETS`] at most.
    known: Targets,
    /// For how many rounds nobody answered; not kept on disk.
    silent: BTreeMap<ClusterName, usize>,
}

impl Answered {
    /// What a former run kept.
    #[must_use]
    pub fn new(known: Targets) -> Self {
        Answered { known, silent: BTreeMap::new() }
    }

    /// What is to be kept for the next run.
    #[must_use]
    pub fn known(&self) -> &Targets {
        &self.known
    }

    /// Whom to ask, of what is offered: first those that answered before. Where these are silent other ones are asked too,
    /// in each round the next: three pods that went away are not their cluster. Where nothing is offered, those that
    /// answered.
    #[must_use]
    pub fn targets(&self, offered: &Targets) -> Targets {
        let none = Vec::new();
        let clusters: BTreeSet<&ClusterName> = self.known.keys().chain(offered.keys()).collect();
        let mut targets = Targets::new();
        for cluster in clusters {
            let known = self.known.get(cluster).unwrap_or(&none);
            let chosen = match offered.get(cluster).filter(|offered| !offered.is_empty()) {
                Some(offered) => self.of_offered(cluster, known, offered),
                None => known.clone(),
            };
            targets.insert(cluster.clone(), chosen);
        }
        targets
    }

    fn of_offered(
        &self,
        cluster: &ClusterName,
        known: &[SocketAddr],
        offered: &[SocketAddr],
    ) -> Vec<SocketAddr> {
        let mut chosen: Vec<SocketAddr> =
            known.iter().filter(|address| offered.contains(address)).copied().collect();
        let rounds = self.silent.get(cluster).copied().unwrap_or(0);
        let others: Vec<SocketAddr> =
            offered.iter().filter(|address| !chosen.contains(address)).copied().collect();
        let (first, count) = match rounds {
            0 => (0, TARGETS.saturating_sub(chosen.len())),
            rounds => ((rounds - 1).wrapping_mul(FRESH), FRESH),
        };
        let from = first.checked_rem(others.len()).unwrap_or(0);
        chosen.extend(others.iter().cycle().skip(from).take(count.min(others.len())));
        chosen
    }

    /// Forgets clusters that are not asked any more.
    pub fn retain(&mut self, clusters: &BTreeSet<ClusterName>) {
        self.known.retain(|cluster, _| clusters.contains(cluster));
        self.silent.retain(|cluster, _| clusters.contains(cluster));
    }

    /// What a round shows of a cluster: with an answer the shortest time in microseconds; `None` where nobody answered
    /// who ever did.
    pub fn judge(&mut self, cluster: &ClusterName, round: &[(SocketAddr, Option<u32>)]) -> Option<Probe> {
        let answered = |address: &SocketAddr| round.iter().any(|(a, time)| a == address && time.is_some());
        let result = match round.iter().filter_map(|(_, time)| *time).min() {
            Some(time) => {
                self.silent.remove(cluster);
                let known = self.known.entry(cluster.clone()).or_default();
                known.retain(answered);
                let new = round.iter().filter(|(_, time)| time.is_some()).map(|(address, _)| *address);
                for address in new {
                    if known.len() < TARGETS && !known.contains(&address) {
                        known.push(address);
                    }
                }
                Ok(time)
            }
            None => {
                *self.silent.entry(cluster.clone()).or_default() += 1;
                let known = self.known.get(cluster)?;
                if !round.iter().any(|(address, _)| known.contains(address)) {
                    return None;
                }
                let asked: Vec<String> = round.iter().map(|(address, _)| address.to_string()).collect();
                Err(format!("no endpoint answers ({})", asked.join(", ")))
            }
        };
        Some(Probe { cluster: cluster.clone(), result })
    }
}

/// Whom imports offer of the clusters that have no gateway to probe: [`OFFERED`] endpoints of each at most, by their TCP
/// ports, the first of every Service before the second of one: a Service whose pods all hang is not its cluster.
#[must_use]
pub fn offered(held: &Held, common: &Common) -> Targets {
    let peers = held.peers().filter(|peer| peer.probes.is_empty());
    let mut targets: Targets = peers.map(|peer| (peer.name.clone(), Vec::new())).collect();
    let mut more = targets.clone();
    for outbound in common.outbound.values() {
        let mut seen = BTreeSet::new();
        for (cluster, address) in endpoints(outbound) {
            let pool = if seen.insert(cluster) { &mut targets } else { &mut more };
            if let Some(found) = pool.get_mut(cluster)
                && found.len() < OFFERED
                && !found.contains(&address)
            {
                found.push(address);
            }
        }
        if targets.values().all(|found| found.len() == OFFERED) {
            return targets;
        }
    }
    for (cluster, found) in &mut targets {
        let more: Vec<SocketAddr> =
            more.remove(cluster).into_iter().flatten().filter(|address| !found.contains(address)).collect();
        let lacking = OFFERED - found.len();
        found.extend(more.into_iter().take(lacking));
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

/// Asks once a second, until `stop`. What answered is kept in the state directory: an agent that starts while a cluster
/// is away would know nobody to ask, and the cluster would count as one of which nothing is known.
pub async fn keep_asking(
    state: StateDir,
    mut held: watch::Receiver<Arc<Held>>,
    mut common: watch::Receiver<Option<Arc<Common>>>,
    lanes: mpsc::Sender<LaneEvent>,
    stop: CancellationToken,
) {
    let kept = state.answered().unwrap_or_else(|error| {
        tracing::warn!(%error, "who answered of the other clusters is forgotten");
        None
    });
    let (mut answered, room) = (Answered::new(kept.unwrap_or_default()), Arc::new(Semaphore::new(AT_ONCE)));
    let mut kept = answered.known().clone();
    let mut offer = Targets::new();
    held.mark_changed();
    let mut rounds = interval(EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rounds.tick() => {}
        }
        if held.has_changed().unwrap_or(false) || common.has_changed().unwrap_or(false) {
            let Some(known) = common.borrow_and_update().clone() else { continue };
            let peers = held.borrow_and_update().clone();
            offer = offered(&peers, &known);
            answered.retain(&offer.keys().cloned().collect());
        }
        let Some(round) = stop.run_until_cancelled(ask_all(answered.targets(&offer), &room)).await else {
            return;
        };
        let probes: Vec<Probe> =
            round.iter().filter_map(|(cluster, round)| answered.judge(cluster, round)).collect();
        if *answered.known() != kept {
            kept = answered.known().clone();
            keep(&state, &kept).await;
        }
        if !probes.is_empty() && lanes.send(LaneEvent::Report(SELF, probes)).await.is_err() {
            return;
        }
    }
}

async fn keep(state: &StateDir, known: &Targets) {
    let (state, known) = (state.clone(), known.clone());
    let saved = tokio::task::spawn_blocking(move || state.set_answered(&known)).await;
    let error = match saved {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(error, "can not keep who answered of the other clusters");
}

/// One round: how long each took, `None` for those that did not answer.
async fn ask_all(
    targets: Targets,
    room: &Arc<Semaphore>,
) -> BTreeMap<ClusterName, Vec<(SocketAddr, Option<u32>)>> {
    let mut asking = JoinSet::new();
    for (cluster, targets) in targets {
        for target in targets {
            let (cluster, room) = (cluster.clone(), room.clone());
            asking.spawn(async move { (cluster, target, ask(target, &room).await) });
        }
    }
    let mut by_cluster: BTreeMap<ClusterName, Vec<(SocketAddr, Option<u32>)>> = BTreeMap::new();
    for (cluster, target, time) in asking.join_all().await {
        by_cluster.entry(cluster).or_default().push((target, time));
    }
    by_cluster
}

/// How long the connection took in microseconds; `None` when there was none, or nobody behind it.
async fn ask(target: SocketAddr, room: &Semaphore) -> Option<u32> {
    let _place = room.acquire().await.ok()?;
    let began = Instant::now();
    let connected = timeout(ANSWER, TcpStream::connect(target)).await.ok()?;
    let time = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
    let answered = match connected {
        Ok(stream) => timeout(ANSWER, ends(stream)).await.unwrap_or(false),
        // Somebody at that address refused.
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    };
    answered.then_some(time)
}

/// Whether the other side says something, or ends the connection whose end it was told.
async fn ends(mut stream: TcpStream) -> bool {
    let ours = stream.shutdown().await;
    match ours.and(stream.read(&mut [0]).await) {
        Ok(_) => true,
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::NotConnected),
    }
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

    /// A round in which these ports answered, and those did not.
    fn round(answered: &[u16], silent: &[u16]) -> Vec<(SocketAddr, Option<u32>)> {
        let one = |time| move |port: &u16| (at(*port), time);
        answered.iter().map(one(Some(50))).chain(silent.iter().map(one(None))).collect()
    }

    #[test]
    fn silence_counts_only_where_there_was_an_answer() {
        let mut answered = Answered::default();
        assert_eq!(answered.judge(&west(), &round(&[], &[1, 2])), None);
        let heard = answered.judge(&west(), &[(at(1), None), (at(2), Some(70)), (at(3), Some(50))]);
        assert_eq!(heard, Some(Probe { cluster: west(), result: Ok(50) }));
        // Those that answered are other ones now, and hidden: no evidence.
        assert_eq!(answered.judge(&west(), &round(&[], &[7])), None);
        let silent = answered.judge(&west(), &round(&[], &[2, 3])).unwrap();
        assert_eq!(silent.result, Err("no endpoint answers (10.0.0.1:2, 10.0.0.1:3)".to_owned()));
    }

    #[test]
    fn who_answered_is_asked_first_and_when_nothing_is_offered_any_more() {
        let mut answered = Answered::default();
        assert_eq!(answered.targets(&offered(&[1, 2, 3, 4])), offered(&[1, 2, 3]));
        answered.judge(&west(), &round(&[4], &[1]));
        assert_eq!(answered.targets(&offered(&[1, 2, 3, 4])), offered(&[4, 1, 2]));
        assert_eq!(answered.targets(&offered(&[])), offered(&[4]));
        let next = Answered::new(answered.known().clone());
        assert_eq!(next.targets(&offered(&[])), offered(&[4]), "the next run knows it too");
        answered.retain(&BTreeSet::new());
        assert_eq!(answered.targets(&Targets::new()), Targets::new());
    }

    #[test]
    fn three_pods_that_went_away_are_not_their_cluster() {
        let mut answered = Answered::default();
        let all: Vec<u16> = (1..=20).collect();
        answered.judge(&west(), &round(&[1, 2, 3], &[]));
        assert_eq!(answered.targets(&offered(&all)), offered(&[1, 2, 3]));
        assert!(answered.judge(&west(), &round(&[], &[1, 2, 3])).unwrap().result.is_err());
        // Beside them the next ones, in each round others; and only one of these answers.
        assert_eq!(answered.targets(&offered(&all)), offered(&all[..15]));
        answered.judge(&west(), &round(&[], &all[..15]));
        let wrapped: Vec<u16> = [1, 2, 3].into_iter().chain(16..=20).chain(4..=10).collect();
        assert_eq!(answered.targets(&offered(&all)), offered(&wrapped));
        assert!(answered.judge(&west(), &round(&[20], &wrapped)).unwrap().result.is_ok());
        assert_eq!(answered.targets(&offered(&all)), offered(&[20, 1, 2]), "what is silent is forgotten");
    }

    #[tokio::test]
    async fn a_refusal_and_an_end_are_answers_and_a_connection_that_nobody_takes_is_none() {
        let room = Semaphore::new(1);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // The kernel takes the connection for a process that does not.
        assert_eq!(ask(address, &room).await, None);
        let closing = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut read = Vec::new();
                stream.read_to_end(&mut read).await.unwrap();
            }
        };
        let heard = tokio::select! {
            () = closing => None,
            heard = ask(address, &room) => heard,
        };
        assert!(heard.is_some());
        drop(listener);
        assert!(ask(address, &room).await.is_some());
    }
}
