//! What a program needs beside itself: its loader and its shared objects, read from its ELF header.
//!
//! Only what 64-bit little-endian Linux programs have is read. Objects are looked for where the build machine's loader
//! looks by default, and nowhere that its environment names.

use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

/// Where the loader looks when nobody tells it anything.
const PLACES: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/lib",
];
/// More than a program of ours could ever need; a bound for what a damaged file may say.
const MAX_OBJECTS: usize = 64;

/// What one file names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The loader, by its absolute path; none for a static program and for a shared object.
    pub(super) loader: Option<String>,
    /// Shared objects, by name.
    pub(super) objects: Vec<String>,
}

/// The files that a program needs: absolute path in the image to file on this machine. Empty for a static program.
pub(super) fn closure(program: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let first = read(program)?;
    let mut waiting = VecDeque::from(first.objects);
    if let Some(loader) = first.loader {
        found.insert(loader.clone(), PathBuf::from(loader));
    }
    while let Some(name) = waiting.pop_front() {
        // The loader is named by libc as an object too, and is where the program says.
        if found.keys().any(|path| path.rsplit('/').next() == Some(name.as_str())) {
            continue;
        }
        ensure!(
            found.len() < MAX_OBJECTS,
            "{} needs more than {MAX_OBJECTS} shared objects",
            program.display()
        );
        let path = PLACES.iter().map(|place| Path::new(place).join(&name)).find(|path| path.exists());
        let path = path.with_context(|| format!("{} needs {name}, which is not here", program.display()))?;
        waiting.extend(read(&path)?.objects);
        found.insert(path.to_string_lossy().into_owned(), path);
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Needs> {
    let bytes = std::fs::read(path).with_context(|| format!("can not read {}", path.display()))?;
    needs(&bytes).with_context(|| format!("{} is no program for this kind of machine", path.display()))
}

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
const NEEDED: u64 = 1;
const STRINGS: u64 = 5;

/// One program header: its kind, and where it is in the file and in memory.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

/// What the bytes of a program or of a shared object name.
fn needs(bytes: &[u8]) -> Result<Needs> {
    ensure!(
        bytes.get(..6) == Some(b"\x7fELF\x02\x01"),
        "it has no header of a 64-bit little-endian ELF file"
    );
    let segments = segments(bytes)?;
    let loader = segments.iter().find(|s| s.kind == INTERPRETER);
    let loader = loader.map(|s| text(bytes, s.offset)).transpose()?;
    let Some(dynamic) = segments.iter().find(|s| s.kind == DYNAMIC) else {
        return Ok(Needs { loader, objects: Vec::new() });
    };
    let mut names = Vec::new();
    let mut strings = None;
    for at in (dynamic.offset..dynamic.offset.saturating_add(dynamic.size)).step_by(16) {
        match (word(bytes, at)?, word(bytes, at + 8)?) {
            (0, _) => break,
            (NEEDED, name) => names.push(name),
            (STRINGS, address) => strings = Some(address),
            _ => {}
        }
    }
    let Some(strings) = strings else { return Ok(Needs { loader, objects: Vec::new() }) };
    let holds =
        |s: &&Segment| s.kind == LOAD && (s.address..s.address.saturating_add(s.size)).contains(&strings);
    let segment = segments.iter().find(holds).context("its strings are in no segment")?;
    let base = segment.offset + (strings - segment.address);
    let objects = names.into_iter().map(|name| text(bytes, base.saturating_add(name)));
    Ok(Needs { loader, objects: objects.collect::<Result<_>>()? })
}

fn segments(bytes: &[u8]) -> Result<Vec<Segment>> {
    let table = word(bytes, 32)?;
    let (size, count) = (u64::from(half(bytes, 54)?), u64::from(half(bytes, 56)?));
    let segment = |at: u64| {
        let kind = word(bytes, at)? as u32;
        Ok(Segment {
            kind,
            offset: word(bytes, at + 8)?,
            address: word(bytes, at + 16)?,
            size: word(bytes, at + 32)?,
        })
    };
    (0..count).map(|n| segment(table.saturating_add(n * size))).collect()
}

fn take<const N: usize>(bytes: &[u8], at: u64) -> Result<[u8; N]> {
    let at = usize::try_from(at).ok().filter(|at| *at < bytes.len()).context("it points behind its end")?;
    bytes[at..].first_chunk().copied().context("it points behind its end")
}

fn word(bytes: &[u8], at: u64) -> Result<u64> {
    Ok(u64::from_le_bytes(take(bytes, at)?))
}

fn half(bytes: &[u8], at: u64) -> Result<u16> {
    Ok(u16::from_le_bytes(take(bytes, at)?))
}

/// Text up to its zero byte.
fn text(bytes: &[u8], at: u64) -> Result<String> {
    let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).context("it points behind its end")?;
    match rest.iter().take(4096).position(|b| *b == 0) {
        Some(end) => Ok(std::str::from_utf8(&rest[..end])?.to_owned()),
        None => bail!("a name in it has no end"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_itself_needs_a_loader_and_libc() {
        let found = closure(&std::env::current_exe().unwrap()).unwrap();
        let names = found.keys().filter_map(|path| path.rsplit('/').next()).collect::<Vec<_>>();
        assert!(names.contains(&"libc.so.6") && names.iter().any(|n| n.starts_with("ld-linux")), "{names:?}");
    }

    #[test]
    fn what_is_no_program_is_refused_and_never_read_behind_its_end() {
        assert!(needs(b"#!/bin/sh\n").is_err());
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for end in [6, 40, 64, 200, 700] {
            assert!(needs(&own[..end]).is_err(), "{end}");
        }
    }
}
