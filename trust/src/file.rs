//! Files that must be whole or absent, and files that must be nobody else's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Who may read a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The owner only (0600): keys and tokens.
    Private,
    /// Everyone (0644): certificates.
    Public,
}

/// A file that could not be written or was not fit to be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file is readable or writable by its group or by others.
    #[error("{path} has mode {mode:03o}: a secret file must be its owner's alone (chmod 600 it)", path = .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no regular file.
    #[error("{path} is not a regular file", path = .0.display())]
    NotAFile(PathBuf),
    /// The file is larger than anything that is expected in it.
    #[error("{path} is larger than {limit} bytes", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// The operating system said no.
    #[error("can not {what} {path}", path = .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { what, path, source }
}

/// Writes a file so that after a crash it is either as before or whole: a temporary file beside it, synced, renamed
/// over it, and the directory synced.
///
/// # Errors
/// When any of these steps fails; the temporary file is removed then.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| FileError::NotAFile(path.to_owned()))?;
    let suffix = crate::random::<8>().map_err(|e| failed("write", path)(io::Error::other(e)))?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}", data_encoding::HEXLOWER.encode(&suffix)));
    let temporary = directory.join(temporary_name);
    let written = write_new(&temporary, bytes, access)
        .and_then(|()| std::fs::rename(&temporary, path).map_err(failed("write", path)));
    if written.is_err() {
        // The first error is the one to report; a temporary file left behind is never read.
        let _ = std::fs::remove_file(&temporary);
        return written;
    }
    File::open(directory).and_then(|d| d.sync_all()).map_err(failed("sync", directory))
}

fn write_new(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    let mode = match access {
        Access::Private => 0o600,
        Access::Public => 0o644,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed("create", path))?;
    file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed("set the mode of", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write", path))
}

/// Reads a secret file of at most `limit` bytes. A file that the administrator owns may be readable by a group: that is how
/// Kubernetes gives a Secret to a process that is not root.
///
/// # Errors
/// When the file can be read or written by anyone else than its owner, is no regular file, is larger, or can not be read.
pub fn read_private(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_guarded(path, limit, refused_bits)
}

/// Reads a token that the kubelet keeps in a file of at most `limit` bytes. It may be readable by the pod's group also where
/// the process owns it: the kubelet leaves no choice.
///
/// # Errors
/// As [`read_private`].
pub fn read_projected(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_guarded(path, limit, |owner, reader| match owner == reader {
        true => 0o037,
        false => refused_bits(owner, reader),
    })
}

fn read_guarded(
    path: &Path,
    limit: u64,
    refused: impl Fn(u32, u32) -> u32,
) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = File::open(path).map_err(failed("read", path))?;
    // The open file is asked, not the path, so that nobody can exchange it in between.
    let known = file.metadata().map_err(failed("read", path))?;
    let mode = known.mode() & 0o777;
    if mode & refused(known.uid(), rustix::process::geteuid().as_raw()) != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode });
    }
    read_bounded(file, path, limit).map(Zeroizing::new)
}

/// The permissions that a secret file must not give, from who owns it and who reads it.
fn refused_bits(owner: u32, reader: u32) -> u32 {
    const ROOT: u32 = 0;
    if owner == ROOT && reader != ROOT { 0o037 } else { 0o077 }
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// When it is no regular file, is larger, or can not be read.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    read_bounded(File::open(path).map_err(failed("read", path))?, path, limit)
}

fn read_bounded(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let metadata = file.metadata().map_err(failed("read", path))?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    // Room for all of it, so that a secret is not copied about by a growing buffer.
    let room = usize::try_from(metadata.len().min(limit)).unwrap_or(0) + 1;
    let mut bytes = Vec::with_capacity(room);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_may_read_what_the_kubelet_projects() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "t").unwrap();
        let with = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        with(0o640);
        assert_eq!(read_projected(&path, 8).unwrap().as_slice(), b"t");
        assert!(read_private(&path, 8).is_err());
        for exposed in [0o660, 0o644, 0o604] {
            with(exposed);
            assert!(matches!(read_projected(&path, 8), Err(FileError::Exposed { .. })), "{exposed:o}");
        }
    }

    #[test]
    fn a_group_may_read_what_the_administrator_gives_to_somebody_else() {
        let (root, reader, other) = (0, 65532, 1000);
        let may = |owner, reader, mode| mode & refused_bits(owner, reader) == 0;
        assert!(may(reader, reader, 0o600) && may(root, reader, 0o440) && may(root, reader, 0o640));
        assert!(!may(root, reader, 0o460) && !may(root, reader, 0o444));
        assert!(!may(reader, reader, 0o640) && !may(other, reader, 0o440) && !may(root, root, 0o640));
    }
}
