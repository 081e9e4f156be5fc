//! The output directory: ours are the files that begin with [`MARK`]; what others put there is not touched.
//!
//! Everything here can be made again, so nothing is synced to disk; a reader sees a file as it was or as it is.

use super::diff::{Action, diff};
use super::transitions::Transitions;
use super::{FOLDERS, MARK, Output};
use rustix::fs::{FlockOperation, flock};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Unfinished files, left by a crash, begin so.
const UNFINISHED: &str = ".sealane-";

/// A step failed.
#[derive(Debug, thiserror::Error)]
#[error("can not {what} {path}: {reason}", path = .path.display())]
pub struct WriteError {
    what: &'static str,
    path: PathBuf,
    /// Said in the message, so no source: it would be said twice.
    reason: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |reason| WriteError { what, path, reason }
}

/// What was written.
#[derive(Debug)]
pub struct Writer {
    out: PathBuf,
    /// Held while this process writes there.
    _lock: File,
    written: BTreeMap<String, String>,
    foreign: BTreeSet<String>,
    /// What is not known to be as it should: at first everything that was found, later what failed or is in the way.
    pending: BTreeSet<String>,
    transitions: Transitions,
}

impl Writer {
    /// Takes the directory for this process and takes stock of it; makes it where it is missing.
    ///
    /// # Errors
    /// When it can not be made or read, or another agent writes there.
    pub fn open(out: &Path) -> Result<Self, WriteError> {
        fs::create_dir_all(out).map_err(failed("make", out))?;
        let mut writer = Writer {
            out: out.to_owned(),
            _lock: lock(out)?,
            written: BTreeMap::new(),
            foreign: BTreeSet::new(),
            pending: BTreeSet::new(),
            transitions: Transitions::default(),
        };
        for folder in FOLDERS {
            let folder_path = out.join(folder);
            fs::create_dir_all(&folder_path).map_err(failed("make", &folder_path))?;
            for entry in fs::read_dir(&folder_path).map_err(failed("list", &folder_path))? {
                let entry = entry.map_err(failed("list", &folder_path))?;
                writer.take_stock(folder, &entry.path())?;
            }
        }
        Ok(writer)
    }

    fn take_stock(&mut self, folder: &str, path: &Path) -> Result<(), WriteError> {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return Ok(()) };
        if name.starts_with(UNFINISHED) {
            return fs::remove_file(path).map_err(failed("remove", path));
        }
        let relative = format!("{folder}/{name}");
        // What is no text of ours, or can not even be read, is somebody else's.
        match fs::read_to_string(path) {
            Ok(text) if text.starts_with(MARK) => {
                self.transitions.learn(&relative, &text);
                self.pending.insert(relative.clone());
                self.written.insert(relative, text);
            }
            _ => {
                self.foreign.insert(relative);
            }
        }
        Ok(())
    }

    /// Since when written conditions are what they are.
    #[must_use]
    pub fn transitions(&self) -> &Transitions {
        &self.transitions
    }

    /// How many files are ours.
    #[must_use]
    pub fn files(&self) -> usize {
        self.written.len()
    }

    /// Brings the directory to what it should be, where these paths and those of former failures are concerned. Says
    /// where files of others stand in the way.
    ///
    /// # Errors
    /// When a step fails; the others are done all the same, and this one is tried again the next time.
    pub fn apply(
        &mut self,
        desired: &Output,
        mut touched: BTreeSet<String>,
    ) -> Result<Vec<String>, WriteError> {
        touched.append(&mut self.pending);
        let mut in_the_way = Vec::new();
        let mut first_error = None;
        for action in diff(&touched, &self.written, desired) {
            let (path, done) = match action {
                Action::Write(path, _) if self.is_foreign(path) => {
                    in_the_way.push(path.to_owned());
                    self.pending.insert(path.to_owned());
                    continue;
                }
                Action::Write(path, text) => (path, self.write(path, text)),
                Action::Remove(path) => (path, self.remove(path)),
            };
            if let Err(error) = done {
                self.pending.insert(path.to_owned());
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(in_the_way), Err)
    }

    /// A file that was not there when we took stock and is not ours may have come since.
    fn is_foreign(&mut self, path: &str) -> bool {
        if self.written.contains_key(path) {
            return false;
        }
        let exists = self.out.join(path).symlink_metadata().is_ok();
        if exists {
            self.foreign.insert(path.to_owned())
        } else {
            self.foreign.remove(path)
        };
        exists
    }

    fn write(&mut self, path: &str, text: &str) -> Result<(), WriteError> {
        replace(&self.out.join(path), text)?;
        self.transitions.learn(path, text);
        self.written.insert(path.to_owned(), text.to_owned());
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<(), WriteError> {
        let full = self.out.join(path);
        match fs::remove_file(&full) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("remove", &full)(e)),
        }
        self.transitions.forget(path);
        self.written.remove(path);
        Ok(())
    }
}

/// Two agents would remove each other's files.
fn lock(out: &Path) -> Result<File, WriteError> {
    let directory = File::open(out).map_err(failed("open", out))?;
    flock(&directory, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
        let source = match errno {
            rustix::io::Errno::WOULDBLOCK => {
                io::Error::other("another agent writes there; give each agent an --out of its own")
            }
            other => other.into(),
        };
        failed("lock", out)(source)
    })?;
    Ok(directory)
}

/// Writes a file beside its place and moves it there.
///
/// # Errors
/// When a step fails; the former file stands then.
pub fn replace(path: &Path, text: &str) -> Result<(), WriteError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = path.with_file_name(format!("{UNFINISHED}{name}"));
    let done = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, path));
    done.map_err(failed("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(files: &[(&str, &str)]) -> Output {
        files.iter().map(|(k, v)| ((*k).to_owned(), format!("{MARK}{v}"))).collect()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory.join("serviceimports"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn stale_files_go_and_foreign_ones_stay() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path()).unwrap();
        let folder = directory.path().join("serviceimports");
        fs::write(folder.join("foreign.yaml"), "mine").unwrap();
        fs::write(folder.join("n.b.yaml"), "mine").unwrap();
        fs::write(folder.join(".sealane-n.a.yaml"), "half").unwrap();
        let desired = output(&[("serviceimports/n.a.yaml", "a: 1\n"), ("serviceimports/n.b.yaml", "b: 1\n")]);
        assert_eq!(
            writer.apply(&desired, desired.keys().cloned().collect()).unwrap(),
            ["serviceimports/n.b.yaml"]
        );
        assert_eq!(names(directory.path()), ["foreign.yaml", "n.a.yaml", "n.b.yaml"]);
        assert_eq!(fs::read_to_string(folder.join("n.b.yaml")).unwrap(), "mine");

        let refused = Writer::open(directory.path()).unwrap_err().to_string();
        assert!(refused.contains("another agent writes there"), "{refused}");
        drop(writer);
        let mut again = Writer::open(directory.path()).unwrap();
        assert_eq!(again.files(), 1, "what a former run wrote is known");
        again.apply(&Output::new(), BTreeSet::new()).unwrap();
        assert_eq!(names(directory.path()), ["foreign.yaml", "n.b.yaml"]);
        fs::remove_file(folder.join("n.b.yaml")).unwrap();
        let all = || desired.keys().cloned().collect();
        assert_eq!(again.apply(&desired, all()).unwrap(), Vec::<String>::new(), "the way is free");
        assert_eq!(names(directory.path()), ["foreign.yaml", "n.a.yaml", "n.b.yaml"]);
    }
}
