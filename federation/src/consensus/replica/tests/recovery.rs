use super::cluster::{self, Cluster, Kv, deadline};
use crate::consensus::open::{Bootstrap, Config, OpenError};
use crate::consensus::recover::force_new_cluster;
use crate::store::log::LogError;
use crate::store::marker::MarkerError;
use sealane_core::identity::ServerId;
use std::fs;
use std::path::{Path, PathBuf};

const ONE: ServerId = ServerId(1);

async fn written(servers: u64, writes: usize) -> Cluster {
    let cluster = Cluster::found(servers).await;
    let leader = cluster.leader().await;
    for n in 0..writes {
        leader.propose(cluster::set(&format!("k{n}"), &n.to_string())).await.unwrap();
    }
    cluster.converged().await;
    cluster
}

/// The files of a directory that hold anything, largest first.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort_by_key(|p| std::cmp::Reverse(fs::metadata(p).unwrap().len()));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn all_servers_restart_with_everything() {
    let mut cluster = written(3, 150).await;
    let before = cluster.leader().await.state().1.clone();
    for id in [1, 2, 3].map(ServerId) {
        cluster.crash(id).await;
    }
    for id in [1, 2, 3].map(ServerId) {
        cluster.restart(id).await;
    }
    let leader = cluster.leader().await;
    leader.read_index(deadline(10)).await.unwrap();
    assert_eq!(leader.state().1, before);
    leader.propose(cluster::set("more", "1")).await.unwrap();
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_restart_image_a_server_makes_it_anew() {
    for writes in [5, 200] {
        let mut cluster = written(1, writes).await;
        let before = cluster.leader().await.state().1.clone();
        cluster.stop(ONE).await;
        fs::remove_dir_all(cluster.dir(ONE).join("state")).unwrap();
        cluster.restart(ONE).await;
        let again = cluster.leader().await;
        again.read_index(deadline(10)).await.unwrap();
        assert_eq!(again.state().1, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_restart_image_is_moved_aside_and_made_anew() {
    let mut cluster = written(1, 200).await;
    let before = cluster.leader().await.state().1.clone();
    cluster.stop(ONE).await;
    let state = cluster.dir(ONE).join("state");
    for path in files(&state) {
        let len = fs::metadata(&path).unwrap().len() as usize;
        fs::write(&path, vec![0x5a; len]).unwrap();
    }
    cluster.restart(ONE).await;
    let again = cluster.leader().await;
    again.read_index(deadline(10)).await.unwrap();
    assert_eq!(again.state().1, before);
    assert!(cluster.dir(ONE).join("state.damaged-1").exists());
}

/// A copy of the image from before is what a power cut may leave.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_from_before_is_brought_up_to_date() {
    for more in [10, 300] {
        let mut cluster = written(1, 20).await;
        cluster.stop(ONE).await;
        let (state, old) = (cluster.dir(ONE).join("state"), cluster.root.path().join("old"));
        copy(&state, &old);
        cluster.restart(ONE).await;
        let leader = cluster.leader().await;
        for n in 0..more {
            leader.propose(cluster::set(&format!("m{n}"), "v")).await.unwrap();
        }
        let before = leader.state().1.clone();
        cluster.stop(ONE).await;
        fs::remove_dir_all(&state).unwrap();
        copy(&old, &state);
        cluster.restart(ONE).await;
        let leader = cluster.leader().await;
        leader.read_index(deadline(10)).await.unwrap();
        assert_eq!(leader.state().1, before);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Flips a bit in the first frames of the last segment.
fn damage_log(dir: &Path) {
    let mut segments = files(&dir.join("log"));
    segments.retain(|p| p.extension().is_some_and(|e| e == "wal"));
    segments.sort();
    let path = segments.last().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[100] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_refused_and_recovered_only_when_told_to() {
    let mut cluster = written(3, 150).await;
    let applied = cluster.replicas[&ONE].state();
    for id in [1, 2, 3].map(ServerId) {
        cluster.crash(id).await;
    }
    damage_log(&cluster.dir(ONE));
    for _ in 0..2 {
        let refused = cluster.start(ONE, &Bootstrap::Restart).await.unwrap_err();
        assert!(matches!(refused, OpenError::Log(LogError::Damaged { .. })), "{refused}");
        assert!(refused.to_string().contains("recover --force-new-cluster"));
    }
    let recovered = force_new_cluster::<Kv>(&cluster.config(ONE)).unwrap();
    assert!(!recovered.damage.is_empty());
    assert!(recovered.kept_in.join("log").exists());
    cluster.restart(ONE).await;
    let leader = cluster.leader().await;
    leader.read_index(deadline(10)).await.unwrap();
    // The image had everything, so nothing was lost.
    assert_eq!(leader.state().1, applied.1);
    assert_eq!(leader.status().borrow().voters, [ONE]);
    leader.propose(cluster::set("more", "1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_disks_makes_a_federation_under_a_new_id() {
    let mut cluster = written(3, 40).await;
    let before = cluster.leader().await.state().1.clone();
    for id in [1, 2, 3].map(ServerId) {
        cluster.crash(id).await;
    }
    // Without image and marker: from the founding snapshot and the log alone.
    let dir = cluster.dir(ServerId(2));
    fs::remove_dir_all(dir.join("state")).unwrap();
    fs::remove_file(dir.join("marker")).unwrap();
    let refused = cluster.start(ServerId(2), &Bootstrap::Restart).await.unwrap_err();
    assert!(matches!(refused, OpenError::Unmarked(_)), "{refused}");
    let config = Config { id: ServerId(12), ..cluster.config(ServerId(2)) };
    let recovered = force_new_cluster::<Kv>(&config).unwrap();
    assert_eq!(recovered.damage, Vec::<String>::new());
    fs::rename(&dir, cluster.dir(ServerId(12))).unwrap();
    cluster.restart(ServerId(12)).await;
    let leader = cluster.leader().await;
    leader.read_index(deadline(10)).await.unwrap();
    assert_eq!(leader.state().1, before);
    cluster.start(ServerId(13), &Bootstrap::Join).await.unwrap();
    leader.add_server(ServerId(13), deadline(20)).await.unwrap();
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_opened_only_by_its_owner_and_only_once() {
    let mut cluster = written(1, 5).await;
    let refused = cluster.start(ONE, &Bootstrap::Restart).await.unwrap_err();
    assert!(matches!(refused, OpenError::InUse(_)), "{refused}");
    cluster.stop(ONE).await;
    for bootstrap in [Bootstrap::Join, Bootstrap::Found { voters: [ONE].into() }] {
        let refused = cluster.start(ONE, &bootstrap).await.unwrap_err();
        assert!(matches!(refused, OpenError::Occupied { found: ONE, .. }), "{refused}");
    }
    let refused = cluster.start(ServerId(2), &Bootstrap::Restart).await.unwrap_err();
    assert!(matches!(refused, OpenError::Empty(_)), "{refused}");
    fs::remove_dir_all(cluster.dir(ServerId(2))).unwrap();
    fs::rename(cluster.dir(ONE), cluster.dir(ServerId(2))).unwrap();
    let refused = cluster.start(ServerId(2), &Bootstrap::Restart).await.unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { found_server: ONE, .. }), "{refused}");
    let marker = cluster.dir(ServerId(2)).join("marker");
    let mut bytes = fs::read(&marker).unwrap();
    bytes[40] ^= 1;
    fs::write(&marker, bytes).unwrap();
    let refused = cluster.start(ServerId(2), &Bootstrap::Restart).await.unwrap_err();
    assert!(matches!(refused, OpenError::Marker(MarkerError::Damaged { .. })), "{refused}");
}

/// The log of another history, longer than the image: what the image has applied was replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_holds_other_entries_than_were_applied_is_refused() {
    let (mut cluster, mut other) = (written(1, 20).await, written(1, 5).await);
    other.stop(ONE).await;
    // Each start begins a term.
    other.restart(ONE).await;
    let leader = other.leader().await;
    for n in 0..40 {
        leader.propose(cluster::set(&format!("o{n}"), "v")).await.unwrap();
    }
    other.stop(ONE).await;
    cluster.stop(ONE).await;
    let log = cluster.dir(ONE).join("log");
    fs::remove_dir_all(&log).unwrap();
    copy(&other.dir(ONE).join("log"), &log);
    let refused = cluster.start(ONE, &Bootstrap::Restart).await.unwrap_err();
    assert!(matches!(refused, OpenError::LogReplaced { .. }), "{refused}");
    assert!(refused.to_string().contains("recover --force-new-cluster"));
    assert!(!cluster.dir(ONE).join("state.damaged-1").exists(), "what is not damaged is not moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_what_was_applied_is_refused() {
    let mut cluster = written(1, 20).await;
    cluster.stop(ONE).await;
    let (log, old) = (cluster.dir(ONE).join("log"), cluster.root.path().join("old"));
    copy(&log, &old);
    cluster.restart(ONE).await;
    cluster.leader().await.propose(cluster::set("more", "1")).await.unwrap();
    cluster.stop(ONE).await;
    fs::remove_dir_all(&log).unwrap();
    copy(&old, &log);
    let refused = cluster.start(ONE, &Bootstrap::Restart).await.unwrap_err();
    assert!(matches!(refused, OpenError::LogTooShort { .. }), "{refused}");
}
