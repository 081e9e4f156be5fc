//! The files of the directory: what each said last, and what changed since.
//!
//! One object belongs to one file: where several name it, the first by file name counts and the others are reported.

use super::documents::{Document, parse};
use super::{MAX_FILE, MAX_FILES};
use crate::index::{Change, Part, PartKey};
use crate::source::{Problem, SourceEvent};
use sealane_trust::file;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What tells two states of a file apart without reading it.
type Stamp = (u64, u64, i64, i64);

#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    parts: BTreeMap<PartKey, Part>,
    problems: Vec<Problem>,
}

/// The directory as it was last read.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    files: BTreeMap<String, File>,
    /// The files that describe an object: of several the first counts.
    owners: BTreeMap<PartKey, BTreeSet<String>>,
    sent: BTreeMap<PartKey, Part>,
    sent_problems: Option<Vec<Problem>>,
    /// Whether the problems may be others than those that were sent.
    problems_changed: bool,
    /// The directory held more files than are read.
    too_many: bool,
    changed: BTreeSet<PartKey>,
}

impl Files {
    /// A directory of which nothing was read yet.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Files {
            directory,
            files: BTreeMap::new(),
            owners: BTreeMap::new(),
            sent: BTreeMap::new(),
            sent_problems: None,
            problems_changed: true,
            too_many: false,
            changed: BTreeSet::new(),
        }
    }

    /// Reads every file that differs from what was read before, and forgets those that are gone.
    ///
    /// # Errors
    /// When the directory can not be listed; nothing is changed then.
    pub fn scan(&mut self) -> Result<(), String> {
        let list = || -> io::Result<BTreeSet<String>> {
            let entries = std::fs::read_dir(&self.directory)?;
            entries.filter_map(|e| e.map(|e| manifest_name(&e.path())).transpose()).collect()
        };
        let names = list().map_err(|e| format!("can not list {}: {e}", self.directory.display()))?;
        self.set_too_many(names.len() > MAX_FILES);
        let gone: Vec<String> = self.files.keys().filter(|n| !names.contains(*n)).cloned().collect();
        // Those that are gone make room for those that came.
        for name in gone.into_iter().chain(names.into_iter().take(MAX_FILES)) {
            let path = self.directory.join(&name);
            let stamp = std::fs::metadata(&path).ok().as_ref().map(stamp);
            if stamp.is_none() || self.files.get(&name).is_none_or(|f| f.stamp != stamp) {
                self.read(&path);
            }
        }
        Ok(())
    }

    /// Reads one file again; what is no manifest by its name is passed over.
    pub fn read(&mut self, path: &Path) {
        let Some(name) = manifest_name(path) else { return };
        let path = self.directory.join(&name);
        let before = self.take(&name);
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                let problem = whole(&name, format!("can not be read: {error}"));
                return self.put(name, File { stamp: None, problems: vec![problem], ..before });
            }
        };
        if metadata.is_dir() || (before.stamp.is_none() && self.files.len() >= MAX_FILES) {
            return self.set_too_many(self.too_many || !metadata.is_dir());
        }
        let stamp = Some(stamp(&metadata));
        let read = file::read(&path, MAX_FILE).map_err(|e| e.to_string());
        let text = read.and_then(|b| String::from_utf8(b).map_err(|_| "is not UTF-8 text".to_owned()));
        let file = match text {
            Ok(text) => parsed(&name, &text, before.parts, stamp),
            Err(reason) => File { stamp, parts: before.parts, problems: vec![whole(&name, reason)] },
        };
        self.put(name, file);
    }

    fn set_too_many(&mut self, too_many: bool) {
        self.problems_changed |= self.too_many != too_many;
        self.too_many = too_many;
    }

    /// Takes a file away, and with it its part in what there is.
    fn take(&mut self, name: &str) -> File {
        let file = self.files.remove(name).unwrap_or_default();
        self.problems_changed |= !file.problems.is_empty();
        for key in file.parts.keys() {
            if let Some(owners) = self.owners.get_mut(key) {
                self.problems_changed |= owners.len() > 1;
                owners.remove(name);
                if owners.is_empty() {
                    self.owners.remove(key);
                }
            }
        }
        self.changed.extend(file.parts.keys().cloned());
        file
    }

    fn put(&mut self, name: String, file: File) {
        self.problems_changed |= !file.problems.is_empty();
        for key in file.parts.keys() {
            let owners = self.owners.entry(key.clone()).or_default();
            owners.insert(name.clone());
            self.problems_changed |= owners.len() > 1;
        }
        self.changed.extend(file.parts.keys().cloned());
        self.files.insert(name, file);
    }

    /// What changed since the last call, as events; problems only when they changed.
    pub fn take_events(&mut self) -> Vec<SourceEvent> {
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.changed) {
            let first = self.owners.get(&key).and_then(BTreeSet::first);
            let now = first.and_then(|name| self.files.get(name)?.parts.get(&key)).cloned();
            if self.sent.get(&key) == now.as_ref() {
                continue;
            }
            match now {
                Some(part) => {
                    self.sent.insert(key, part.clone());
                    changes.push(Change::Put(part));
                }
                None => {
                    self.sent.remove(&key);
                    changes.push(Change::Remove(key));
                }
            }
        }
        let mut events = Vec::new();
        if !changes.is_empty() {
            events.push(SourceEvent::Changed(changes));
        }
        if std::mem::take(&mut self.problems_changed) {
            let problems = self.problems();
            if self.sent_problems.as_ref() != Some(&problems) {
                self.log_new(&problems);
                self.sent_problems = Some(problems.clone());
                events.push(SourceEvent::Problems(problems));
            }
        }
        events
    }

    fn log_new(&self, problems: &[Problem]) {
        let known = self.sent_problems.as_deref().unwrap_or_default();
        for p in problems.iter().filter(|p| !known.contains(p)) {
            let (file, document, object, field, reason) =
                (&p.file, p.document, &p.object, &p.field, &p.reason);
            tracing::warn!(file, document, object, field, reason, "manifest refused");
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> =
            self.files.values().flat_map(|f| f.problems.iter().cloned()).collect();
        for (key, owners) in &self.owners {
            let mut owners = owners.iter();
            let Some(first) = owners.next() else { continue };
            for other in owners {
                let reason = format!("is described in {first} too, which counts");
                problems.push(Problem { object: Some(key.to_string()), ..whole(other, reason) });
            }
        }
        if self.too_many {
            problems.push(whole(
                "",
                format!("the directory holds more than {MAX_FILES} files; the others are not read"),
            ));
        }
        problems.sort();
        problems
    }
}

/// What a file says now. An object whose document is bad stays as it was; a document that does not even tell which
/// object it is about may be about any of the file's, so then they all stay.
fn parsed(name: &str, text: &str, before: BTreeMap<PartKey, Part>, stamp: Option<Stamp>) -> File {
    let mut file = File { stamp, ..File::default() };
    let mut keep_all = false;
    let mut keep = BTreeSet::new();
    let documents = match parse(text) {
        Ok(documents) => documents,
        Err(reason) => return File { stamp, parts: before, problems: vec![whole(name, reason)] },
    };
    for (at, document) in documents {
        let problem = |object: Option<String>, field: String, reason: String| Problem {
            file: name.to_owned(),
            document: at,
            object,
            field,
            reason,
        };
        match document {
            Document::Part(part) => {
                let key = part.key();
                match file.parts.entry(key) {
                    Entry::Occupied(first) => {
                        let reason = "is described twice in this file; the first counts".to_owned();
                        let key = first.key().to_string();
                        file.problems.push(problem(Some(key), String::new(), reason));
                    }
                    Entry::Vacant(place) => {
                        place.insert(part);
                    }
                }
            }
            Document::Ignored { kind } => {
                tracing::debug!(file = name, document = at, kind, "manifest of another kind ignored");
            }
            Document::Bad { key, field, reason } => {
                keep_all |= key.is_none();
                file.problems.push(problem(key.as_ref().map(ToString::to_string), field, reason));
                keep.extend(key);
            }
        }
    }
    for (key, part) in before {
        if keep_all || keep.contains(&key) {
            file.parts.entry(key).or_insert(part);
        }
    }
    file
}

fn whole(file: &str, reason: String) -> Problem {
    Problem { file: file.to_owned(), document: 0, object: None, field: String::new(), reason }
}

/// The name of a file that is a manifest by its name: YAML or JSON, and not hidden.
fn manifest_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let extension = Path::new(name).extension()?.to_str()?;
    let manifest = matches!(extension, "yaml" | "yml" | "json") && !name.starts_with('.');
    manifest.then(|| name.to_owned())
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}
