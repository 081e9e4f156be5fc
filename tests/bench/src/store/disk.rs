//! The disk that both stores write to: that it is one, and what it takes to write to it durably.

use crate::quantile::Samples;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// File systems in memory, where a sync costs nothing and proves nothing.
const IN_MEMORY: [(i64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];
/// Those that we can name.
const KNOWN: [(i64, &str); 5] = [
    (0xef53, "ext4"),
    (0x5846_5342, "XFS"),
    (0x9123_683e, "Btrfs"),
    (0x2fc1_2fc1, "ZFS"),
    (0x794c_7630, "overlayfs"),
];
/// How often the probe writes.
const WRITES: usize = 200;
/// What it writes.
const BYTES: usize = 4096;

/// Says what the disk below a directory is and how long a synced append takes there.
///
/// # Errors
/// When it is no disk but memory, or can not be written.
pub(crate) fn describe(directory: &Path) -> Result<String> {
    let kind = rustix::fs::statfs(directory).context("can not ask what the disk is")?.f_type;
    // Its type differs between architectures; the numbers are the same.
    #[allow(clippy::unnecessary_cast)]
    let kind = kind as i64;
    let named = |list: &[(i64, &'static str)]| list.iter().find(|(k, _)| *k == kind).map(|(_, name)| *name);
    if let Some(name) = named(&IN_MEMORY) {
        bail!(
            "{} is {name}, which is memory: a store that syncs to it proves nothing; name a directory on a disk by \
             --directory",
            directory.display()
        );
    }
    let name = named(&KNOWN).map_or_else(|| format!("file system {kind:#x}"), str::to_owned);
    let samples = probe(directory)?;
    Ok(format!(
        "{name}, on which an append of 4 KiB with fdatasync takes {} ms (p99 {})",
        samples.millis(0.5),
        samples.millis(0.99)
    ))
}

fn probe(directory: &Path) -> Result<Samples> {
    let path = directory.join("probe");
    let mut file = File::create(&path).with_context(|| format!("can not write {}", path.display()))?;
    let mut samples = Samples::default();
    for _ in 0..WRITES {
        let started = Instant::now();
        file.write_all(&[7; BYTES])?;
        file.sync_data()?;
        samples.push(started.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(samples)
}
