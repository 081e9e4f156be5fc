//! Replicas in one process: a key-value machine, a network in memory, directories on disk.

use crate::consensus::machine::{Applied, Fatal, Record, StateMachine};
use crate::consensus::node::NodeConfig;
use crate::consensus::open::{Bootstrap, Config, OpenError, open};
use crate::consensus::replica::Replica;
use crate::consensus::transport::{Link, ReceiveError, Transport};
use crate::store::log::wal::WalConfig;
use bytes::Bytes;
use sealane_core::identity::{FederationId, ServerId};
use sealane_proto::peer::v1::RaftMessage;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

pub(crate) const FEDERATION: FederationId = FederationId([6; 16]);

pub(crate) fn deadline(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Keys and values; `set key value` answers the value before.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Kv(Arc<BTreeMap<String, String>>);

impl Kv {
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.0.get(key).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

pub(crate) fn set(key: &str, value: &str) -> Bytes {
    format!("set {key} {value}").into()
}

impl StateMachine for Kv {
    type Reply = Option<String>;

    fn apply(&mut self, _: u64, _: u64, command: &[u8]) -> Result<Applied<Option<String>>, Fatal> {
        let command = std::str::from_utf8(command).map_err(Fatal::new)?;
        let mut words = command.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("set"), Some(key), Some(value)) => {
                let reply = Arc::make_mut(&mut self.0).insert(key.to_owned(), value.to_owned());
                let dirty = vec![(key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()))];
                Ok(Applied { reply, dirty })
            }
            _ => Err(Fatal::new(format!("unknown command {command:?}"))),
        }
    }

    fn records(&self) -> Box<dyn Iterator<Item = Record> + Send + '_> {
        Box::new(self.0.iter().map(|(k, v)| (k.clone().into_bytes(), v.clone().into_bytes())))
    }

    fn restore<I: Iterator<Item = Result<Record, Fatal>>>(records: I) -> Result<Self, Fatal> {
        let text = |bytes| String::from_utf8(bytes).map_err(Fatal::new);
        let pairs = records.map(|r| r.and_then(|(k, v)| Ok((text(k)?, text(v)?))));
        Ok(Kv(Arc::new(pairs.collect::<Result<_, _>>()?)))
    }

    fn min_version(&self) -> u32 {
        1
    }
}

#[derive(Default)]
struct Wires {
    links: BTreeMap<ServerId, Link>,
    cut: BTreeSet<ServerId>,
}

/// Delivers at once, or not at all to and from servers that are cut off.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<Wires>>);

impl Net {
    pub(crate) fn cut(&self, server: ServerId) {
        self.0.lock().unwrap().cut.insert(server);
    }

    pub(crate) fn heal(&self, server: ServerId) {
        self.0.lock().unwrap().cut.remove(&server);
    }

    fn between(&self, from: ServerId, to: ServerId) -> Option<Link> {
        let wires = self.0.lock().unwrap();
        let cut = wires.cut.contains(&from) || wires.cut.contains(&to);
        wires.links.get(&to).filter(|_| !cut).cloned()
    }

    fn attach(&self, link: Link) -> Arc<dyn Transport> {
        self.0.lock().unwrap().links.insert(link.id(), link.clone());
        Arc::new(Wire { net: self.clone(), link })
    }
}

struct Wire {
    net: Net,
    link: Link,
}

impl Transport for Wire {
    fn send(&self, to: ServerId, message: RaftMessage) {
        let peer = self.net.between(self.link.id(), to);
        match peer.map(|peer| peer.deliver(self.link.id(), &FEDERATION.0, vec![message])) {
            Some(Ok(())) => {}
            None | Some(Err(ReceiveError::Stopped)) => self.link.unreachable(to),
            Some(Err(error)) => panic!("{error}"),
        }
    }

    fn send_snapshot(&self, to: ServerId, message: RaftMessage, mut file: File) {
        let (net, link) = (self.net.clone(), self.link.clone());
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            let delivered = net.between(link.id(), to).is_some_and(|peer| {
                let size = bytes.len() as u64;
                let Ok(mut receiving) = peer.receive(link.id(), &FEDERATION.0, message, size) else {
                    return false;
                };
                bytes.chunks(100).all(|piece| receiving.push(piece).is_ok()) && receiving.finish().is_ok()
            });
            link.snapshot_sent(to, delivered);
        });
    }
}

pub(crate) struct Cluster {
    pub(crate) root: tempfile::TempDir,
    pub(crate) net: Net,
    pub(crate) replicas: BTreeMap<ServerId, Replica<Kv>>,
}

impl Cluster {
    pub(crate) async fn found(servers: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut cluster = Cluster { root, net: Net::default(), replicas: BTreeMap::new() };
        let voters: BTreeSet<_> = (1..=servers).map(ServerId).collect();
        for id in voters.clone() {
            cluster.start(id, &Bootstrap::Found { voters: voters.clone() }).await.unwrap();
        }
        cluster
    }

    pub(crate) fn dir(&self, id: ServerId) -> PathBuf {
        self.root.path().join(id.to_string())
    }

    pub(crate) fn config(&self, id: ServerId) -> Config {
        let node = NodeConfig {
            election_ticks: 10,
            snapshot_entries: 60,
            tail_entries: 10,
            ..NodeConfig::default()
        };
        let wal = WalConfig { segment_bytes: 16 << 10, cache_bytes: 4 << 10 };
        Config { tick: Duration::from_millis(20), node, wal, ..Config::new(self.dir(id), id, FEDERATION) }
    }

    pub(crate) async fn start(&mut self, id: ServerId, bootstrap: &Bootstrap) -> Result<(), OpenError> {
        let (config, net, bootstrap) = (self.config(id), self.net.clone(), bootstrap.clone());
        net.heal(id);
        let opened = tokio::task::spawn_blocking(move || open(&config, &bootstrap, |link| net.attach(link)));
        self.replicas.insert(id, opened.await.unwrap()?);
        Ok(())
    }

    pub(crate) async fn restart(&mut self, id: ServerId) {
        self.start(id, &Bootstrap::Restart).await.unwrap();
    }

    pub(crate) async fn stop(&mut self, id: ServerId) {
        self.replicas.remove(&id).unwrap().shutdown().await;
    }

    /// Nothing that it says from now on reaches anyone.
    pub(crate) async fn crash(&mut self, id: ServerId) {
        self.net.cut(id);
        self.stop(id).await;
    }

    async fn find(&self, wanted: impl Fn(&Replica<Kv>) -> bool) -> Replica<Kv> {
        let until = deadline(20);
        loop {
            if let Some(found) = self.replicas.values().find(|r| wanted(r)) {
                return found.clone();
            }
            assert!(Instant::now() < until, "no such replica");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn leader(&self) -> Replica<Kv> {
        self.find(|r| r.status().borrow().is_leader()).await
    }

    pub(crate) async fn leader_except(&self, not: ServerId) -> Replica<Kv> {
        self.find(|r| r.id() != not && r.status().borrow().is_leader()).await
    }

    pub(crate) async fn follower(&self) -> Replica<Kv> {
        let leader = self.leader().await.id();
        self.find(|r| r.id() != leader && r.status().borrow().leader == Some(leader)).await
    }

    /// Waits until all have the same state at the same index.
    pub(crate) async fn converged(&self) {
        let until = deadline(20);
        loop {
            let states: Vec<_> = self.replicas.values().map(Replica::state).collect();
            if states.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            let at: Vec<_> = self.replicas.values().map(|r| r.status().borrow().clone()).collect();
            assert!(Instant::now() < until, "{at:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
