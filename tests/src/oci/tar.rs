//! Tar archives of the POSIX kind (ustar), with nothing in them of the machine or of the time they were written at.

use anyhow::{Context, Result, ensure};
use std::io::Write;

const BLOCK: usize = 512;
/// The largest size that eleven octal digits say.
const MAX_SIZE: usize = 0o777_7777_7777;

/// Writes one archive.
pub(super) struct Writer<W> {
    out: W,
}

/// What an entry is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    File,
    Symlink,
    Directory,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Writer { out }
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.header(path, Kind::File, mode, "", bytes.len())?;
        self.out.write_all(bytes)?;
        let rest = bytes.len() % BLOCK;
        if rest > 0 {
            self.out.write_all(&[0; BLOCK][rest..])?;
        }
        Ok(())
    }

    pub(super) fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.header(&format!("{path}/"), Kind::Directory, mode, "", 0)
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.header(path, Kind::Symlink, 0o777, target, 0)
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out.flush()?)
    }

    fn header(&mut self, path: &str, kind: Kind, mode: u32, target: &str, size: usize) -> Result<()> {
        ensure!(target.len() <= 100, "the target of {path} has more than 100 bytes");
        ensure!(size <= MAX_SIZE, "{path} is larger than 8 GiB");
        let (prefix, name) = split(path).with_context(|| format!("the path {path} is too long for tar"))?;
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000"); // Owner and group are root.
        put(116, "0000000");
        put(124, &format!("{size:011o}"));
        put(136, "00000000000"); // Everything is of 1970.
        put(148, "        "); // The checksum counts as blanks in itself.
        put(
            156,
            match kind {
                Kind::File => "0",
                Kind::Symlink => "2",
                Kind::Directory => "5",
            },
        );
        put(157, target);
        put(257, "ustar\x0000");
        put(345, prefix);
        let sum = header.iter().map(|b| u32::from(*b)).sum::<u32>();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        Ok(self.out.write_all(&header)?)
    }
}

/// A path as prefix (155 bytes) and name (100 bytes), parted at a slash.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= 100 {
        return Some(("", path));
    }
    let parted = path.match_indices('/').map(|(at, _)| (&path[..at], &path[at + 1..]));
    parted.into_iter().find(|(prefix, name)| prefix.len() <= 155 && !name.is_empty() && name.len() <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_parted_at_a_slash() {
        assert_eq!(split("a/b"), Some(("", "a/b")));
        let (dir, file) = ("d".repeat(90), "f".repeat(60));
        assert_eq!(split(&format!("{dir}/{file}")), Some((dir.as_str(), file.as_str())));
        assert_eq!(split(&"x".repeat(101)), None);
    }

    #[test]
    fn a_foreign_tar_reads_what_was_written() {
        let mut bytes = Vec::new();
        let mut tar = Writer::new(&mut bytes);
        tar.directory("etc", 0o755).unwrap();
        tar.file("etc/passwd", 0o644, b"x:0:0\n").unwrap();
        tar.symlink("bin", "usr/bin").unwrap();
        tar.finish().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path().join("a.tar");
        std::fs::write(&archive, &bytes).unwrap();
        let listing = std::process::Command::new("tar")
            .args(["--numeric-owner", "--utc", "-tvf"])
            .arg(&archive)
            .output()
            .unwrap();
        let expected = "\
drwxr-xr-x 0/0               0 1970-01-01 00:00 etc/
-rw-r--r-- 0/0               6 1970-01-01 00:00 etc/passwd
lrwxrwxrwx 0/0               0 1970-01-01 00:00 bin -> usr/bin
";
        assert_eq!(String::from_utf8(listing.stdout).unwrap(), expected);
    }
}
