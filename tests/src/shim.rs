//! Libraries to preload, compiled from `tests/shim` where they are needed.

use anyhow::{Context, Result, ensure};
use sealane::local::Lab;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why a test that needs one is skipped.
pub const NO_COMPILER: &str = "there is no C compiler (cc, gcc or clang) for the library that it preloads";

/// Compiles a library into the lab; `None` where there is no C compiler.
///
/// # Errors
/// When the compiler refuses it.
pub fn build(lab: &Lab, name: &str) -> Result<Option<PathBuf>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim").join(name).with_extension("c");
    let library = lab.path().join(name).with_extension("so");
    for compiler in ["cc", "gcc", "clang"] {
        let mut command = Command::new(compiler);
        command.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
        command.arg(&library).arg(&source).args(["-ldl", "-lpthread"]);
        match command.output() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("can not run {compiler}")),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "{compiler} refused {}:\n{said}", source.display());
                return Ok(Some(library));
            }
        }
    }
    Ok(None)
}

/// Runs a test in a lab of its own with one of the libraries; skips it, loudly, where there is no C compiler.
///
/// # Panics
/// When the test fails.
pub fn in_lab_with(name: &str, test: &str, body: impl AsyncFnOnce(&Lab, &Path) -> Result<()>) {
    crate::in_lab(async |lab| match build(lab, name)? {
        Some(library) => body(lab, &library).await,
        None => {
            crate::skip(test, NO_COMPILER);
            Ok(())
        }
    });
}
