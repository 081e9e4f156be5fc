//! One layer of an image: a tree of files, or an archive that another tool made.

use super::tar;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;

/// What an image holds more than the layers below.
#[derive(Debug, Clone)]
pub enum Layer {
    /// Files of ours.
    Tree(Tree),
    /// A tar archive as it is, such as a user land that `mmdebstrap` made. Whether it is always the same is up to the
    /// tool that made it.
    Tar(Vec<u8>),
}

/// Files by their paths, without a leading slash. The directories above them need not be named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Directory { mode: u32 },
    File { mode: u32, bytes: Vec<u8> },
    Symlink { target: String },
}

impl Layer {
    /// Reads an archive that another tool made.
    ///
    /// # Errors
    /// When it can not be read.
    pub fn from_tar(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("can not read {}", path.display()))?;
        Ok(Layer::Tar(bytes))
    }

    /// The layer as a tar archive.
    pub(super) fn to_tar(&self) -> Result<Vec<u8>> {
        match self {
            Layer::Tar(bytes) => Ok(bytes.clone()),
            Layer::Tree(tree) => tree.to_tar(),
        }
    }
}

impl From<Tree> for Layer {
    fn from(tree: Tree) -> Self {
        Layer::Tree(tree)
    }
}

impl Tree {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A file with these bytes.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.put(path, Entry::File { mode, bytes: bytes.into() });
        self
    }

    /// A file of this machine, under another path.
    ///
    /// # Errors
    /// When it can not be read.
    pub fn copy(self, path: &str, mode: u32, from: &Path) -> Result<Self> {
        let bytes = std::fs::read(from).with_context(|| format!("can not read {}", from.display()))?;
        Ok(self.file(path, mode, bytes))
    }

    /// A directory of its own mode.
    #[must_use]
    pub fn directory(mut self, path: &str, mode: u32) -> Self {
        self.put(path, Entry::Directory { mode });
        self
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        self.put(path, Entry::Symlink { target: target.to_owned() });
        self
    }

    fn put(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/').to_owned();
        // What was said of a directory stays said when a file is put into it.
        for above in path.match_indices('/').map(|(at, _)| path[..at].to_owned()) {
            self.entries.entry(above).or_insert(Entry::Directory { mode: 0o755 });
        }
        self.entries.insert(path, entry);
    }

    fn to_tar(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut tar = tar::Writer::new(&mut bytes);
        for (path, entry) in &self.entries {
            ensure!(!path.is_empty() && !path.split('/').any(|part| part == ".."), "{path:?} is no path");
            match entry {
                Entry::Directory { mode } => tar.directory(path, *mode)?,
                Entry::File { mode, bytes } => tar.file(path, *mode, bytes)?,
                Entry::Symlink { target } => tar.symlink(path, target)?,
            }
        }
        tar.finish()?;
        Ok(bytes)
    }
}
