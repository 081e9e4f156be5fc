//! The image of Sealane: one program, the user that it runs as, and an empty /tmp.
//!
//! There is no shell, no package manager and no list of public authorities: Sealane trusts its own roots only. A static
//! program comes alone; one that is linked to the C library comes with the loader and the shared objects of the machine
//! that it was built on, because only these are known to fit it.

use super::layer::Tree;
use super::{Image, elf};
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// The user and group of every Sealane process in a pod; charts and image build file say the same.
pub const USER: u32 = 65532;

/// The name of the image of a version, as a pod that asks for `sealane:VERSION` is understood.
#[must_use]
pub fn name(version: &str) -> String {
    format!("docker.io/library/sealane:{version}")
}

/// That of this version.
#[must_use]
pub fn default_name() -> String {
    name(env!("CARGO_PKG_VERSION"))
}

/// The image of a binary.
///
/// # Errors
/// When the binary is none for this kind of machine, or needs what is not here.
pub fn image(binary: &Path, names: Vec<String>) -> Result<Image> {
    let labels = [
        ("org.opencontainers.image.title", "sealane"),
        ("org.opencontainers.image.description", "Joins clusters into a federation"),
        ("org.opencontainers.image.licenses", "Apache-2.0"),
        ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION")),
    ];
    let image = program("sealane", binary, names)?;
    Ok(Image { labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(), ..image })
}

/// An image of any program, with what it needs, as that of Sealane is made.
///
/// # Errors
/// When the binary is none for this kind of machine, or needs what is not here.
pub fn program(name: &str, binary: &Path, names: Vec<String>) -> Result<Image> {
    let needed = elf::closure(binary)?;
    ensure!(is_executable(binary)?, "{} is not executable", binary.display());
    let mut base = Tree::new()
        .file(
            "etc/passwd",
            0o644,
            format!("root:x:0:0:root:/:/nologin\nsealane:x:{USER}:{USER}:sealane:/:/nologin\n"),
        )
        .file("etc/group", 0o644, format!("root:x:0:\nsealane:x:{USER}:\n"))
        // The C library's own default would ask DNS before /etc/hosts is read.
        .file("etc/nsswitch.conf", 0o644, "hosts: files dns\n")
        .directory("tmp", 0o1777);
    for (path, from) in &needed {
        base = base.copy(path, 0o755, from)?;
    }
    let program = Tree::new().copy(name, 0o755, binary)?;
    Ok(Image {
        names,
        entrypoint: vec![format!("/{name}")],
        user: format!("{USER}:{USER}"),
        directory: "/".to_owned(),
        // What seldom changes is below, so that an upgrade fetches the program alone.
        layers: vec![base.into(), program.into()],
        ..Image::default()
    })
}

fn is_executable(path: &Path) -> Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let known = std::fs::metadata(path).with_context(|| format!("can not read {}", path.display()))?;
    Ok(known.permissions().mode() & 0o111 != 0)
}
