//! Golden renders: what Helm makes of each chart with each of its values files.

use super::{CHARTS, render, root, variants};
use anyhow::Result;
use std::path::PathBuf;

/// One render, and where it is kept.
#[derive(Debug)]
pub struct Golden {
    /// The chart.
    pub chart: &'static str,
    /// The values file beside the defaults; none for the defaults alone.
    pub variant: Option<String>,
}

impl Golden {
    /// Every render that is kept.
    ///
    /// # Errors
    /// When the charts can not be read.
    pub fn all() -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for chart in CHARTS {
            all.push(Golden { chart, variant: None });
            all.extend(variants(chart)?.into_iter().map(|v| Golden { chart, variant: Some(v) }));
        }
        Ok(all)
    }

    /// Where it is kept.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let name = self.variant.as_deref().unwrap_or("values");
        root().join("tests/golden").join(self.chart).join(format!("{name}.yaml"))
    }

    /// Renders it now.
    ///
    /// # Errors
    /// When Helm refuses it.
    pub fn render(&self) -> Result<String> {
        render(self.chart, self.variant.as_deref(), &[])
    }
}
