//! The marker file: whose disk this is.
//!
//! Law: a storage directory without a whole marker is not opened. It is what tells a disk that was lost, cloned or
//! mounted in the wrong place from the one that voted.

use crate::store::durable;
use sealane_core::identity::{FederationId, ServerId};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

const FILE: &str = "marker";
const HEAD: &str = "sealane-federation storage";
/// The version of everything in a storage directory.
pub const FORMAT: u32 = 1;

/// Who the disk belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The federation.
    pub federation: FederationId,
    /// The server whose votes and entries these are.
    pub server: ServerId,
    /// Made once per disk: a server that lost its disk is another storage and needs another id.
    pub storage: [u8; 16],
}

/// Why a marker can not be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// It could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's complaint.
        source: io::Error,
    },
    /// It is not what was written.
    #[error(
        "{path} is damaged ({why}): the server does not start on a disk that it can not tell for its own. \
         Restore the file, or rejoin as a new server, or, if this is the last disk of the federation, run \
         `sealane-federation recover --force-new-cluster`",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A newer build wrote it.
    #[error("{path} has format {found}, and this build reads {FORMAT}: start a newer build", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
}

impl Marker {
    fn text(&self) -> String {
        let mut text = format!(
            "{HEAD}\nformat {FORMAT}\nfederation {}\nserver {}\nstorage ",
            self.federation, self.server
        );
        for byte in self.storage {
            // Writing to a String can not fail.
            let _ = write!(text, "{byte:02x}");
        }
        let sum = crc32c::crc32c(text.as_bytes());
        let _ = write!(text, "\ncrc32c {sum:08x}\n");
        text
    }

    /// Reads the marker of `dir`; `None` when there is none.
    pub fn load(dir: &Path) -> Result<Option<Self>, MarkerError> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Self::parse(&bytes, &path).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(MarkerError::Io { path, source }),
        }
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, MarkerError> {
        let damaged = |why| MarkerError::Damaged { path: path.to_owned(), why };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("not text"))?;
        let (body, sum) = text.split_once("\ncrc32c ").ok_or_else(|| damaged("no checksum"))?;
        if format!("{:08x}\n", crc32c::crc32c(body.as_bytes())) != sum {
            return Err(damaged("the checksum does not match"));
        }
        let mut lines = body.lines();
        if lines.next() != Some(HEAD) {
            return Err(damaged("not a marker"));
        }
        let mut field = |name: &str| lines.next().and_then(|l| l.strip_prefix(name)).map(str::trim);
        let format = field("format").and_then(|v| v.parse().ok()).ok_or_else(|| damaged("no format"))?;
        if format != FORMAT {
            return Err(MarkerError::Format { path: path.to_owned(), found: format });
        }
        let federation = field("federation").and_then(|v| v.parse().ok());
        let server = field("server").and_then(|v| v.parse().ok()).filter(|id| *id != 0);
        let storage = field("storage").and_then(|v| v.parse::<FederationId>().ok());
        Ok(Marker {
            federation: federation.ok_or_else(|| damaged("no federation id"))?,
            server: ServerId(server.ok_or_else(|| damaged("no server id"))?),
            storage: storage.ok_or_else(|| damaged("no storage id"))?.0,
        })
    }

    /// Writes the marker of `dir`, on the disk when this returns.
    pub fn store(&self, dir: &Path) -> Result<(), MarkerError> {
        let path = dir.join(FILE);
        durable::write_file(&path, self.text().as_bytes()).map_err(|source| MarkerError::Io { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker { federation: FederationId([7; 16]), server: ServerId(3), storage: [9; 16] }
    }

    #[test]
    fn is_read_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Marker::load(dir.path()).unwrap(), None);
        marker().store(dir.path()).unwrap();
        assert_eq!(Marker::load(dir.path()).unwrap(), Some(marker()));
    }

    #[test]
    fn any_flipped_bit_is_refused_and_the_way_out_named() {
        let dir = tempfile::tempdir().unwrap();
        marker().store(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let error = Marker::load(dir.path()).unwrap_err();
            assert!(matches!(error, MarkerError::Damaged { .. }), "bit {bit}: {error}");
            assert!(error.to_string().contains("sealane-federation recover --force-new-cluster"));
        }
    }
}
