//! Power cuts: servers run under the library of `tests/shim/power.c`, which keeps beside each server's directory what
//! would be on its disk; a cut replaces the directory by that.

use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What a cut leaves of what no call had made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    All,
    /// About half of the pages and names, in any order, by a seed.
    Some(u64),
}

/// What the disk lies about, to show that a test would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// fsync and fdatasync do nothing.
    Sync,
    /// fsync of a directory does nothing.
    Names,
}

/// The environment of a server whose power can be cut.
#[must_use]
pub fn environment(library: &Path, loss: Loss, lie: Option<Lie>) -> Vec<(String, String)> {
    let mode = match loss {
        Loss::All => "drop".to_owned(),
        Loss::Some(seed) => format!("tear:{seed}"),
    };
    let lie = lie.map(|lie| match lie {
        Lie::Sync => "fsync",
        Lie::Names => "names",
    });
    let mut variables = vec![
        ("LD_PRELOAD".to_owned(), library.to_string_lossy().into_owned()),
        ("SEALANE_POWER".to_owned(), mode),
    ];
    variables.extend(lie.map(|lie| ("SEALANE_POWER_BROKEN".to_owned(), lie.to_owned())));
    variables
}

/// Replaces the directory of a killed server by what was on its disk.
///
/// # Errors
/// When the server did not run under the library.
pub fn cut(directory: &Path) -> Result<()> {
    let disk = directory.with_added_extension("disk");
    let root = fs::read_to_string(disk.join("root")).context("there is no disk: no server ran on it")?;
    let after = directory.with_added_extension("after");
    restore(&disk, root.trim(), &after)?;
    fs::remove_dir_all(directory).context("can not forget the page cache")?;
    fs::rename(&after, directory).context("can not put the disk in place")?;
    fs::remove_dir_all(&disk).context("can not remove the disk")
}

fn restore(disk: &Path, inode: &str, to: &Path) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("can not make {}", to.display()))?;
    let listing = disk.join("d").join(inode);
    // A directory whose names were never synced is empty.
    let names = if listing.exists() { fs::read_to_string(&listing)? } else { String::new() };
    for line in names.lines() {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        let [kind, inode, mode, name] = fields[..] else { bail!("{line:?} is no name") };
        let path = to.join(name);
        if kind == "d" {
            restore(disk, inode, &path)?;
        } else {
            let content = disk.join("f").join(inode);
            // As is a file whose content was never synced.
            if content.exists() { fs::copy(&content, &path).map(drop) } else { fs::write(&path, "") }
                .with_context(|| format!("can not restore {}", path.display()))?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(u32::from_str_radix(mode, 8)?))?;
    }
    Ok(())
}
