//! Charts as they are handed out: packed by `helm package`, under a version.

use super::{CHARTS, helm};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// All charts of one version, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packages {
    folder: PathBuf,
    version: String,
}

impl Packages {
    /// Packs the charts of a directory into a folder, under this version: of the charts, and of the image that they ask for.
    ///
    /// # Errors
    /// When Helm refuses one.
    pub fn make(charts: &Path, folder: &Path, version: &str) -> Result<Self> {
        let made = Packages { folder: folder.to_owned(), version: version.to_owned() };
        let out = folder.to_str().with_context(|| format!("{} is no text", folder.display()))?;
        for chart in CHARTS {
            let from = charts.join(chart).display().to_string();
            let words =
                ["package", &from, "--destination", out, "--version", version, "--app-version", version];
            helm(&words)?;
            ensure!(made.path(chart).exists(), "Helm made no {}", made.path(chart).display());
        }
        Ok(made)
    }

    /// The package of a chart.
    #[must_use]
    pub fn path(&self, chart: &str) -> PathBuf {
        self.folder.join(format!("{chart}-{}.tgz", self.version))
    }

    /// Their version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}
