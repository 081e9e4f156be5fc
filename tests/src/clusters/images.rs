//! The images that every node has, made here: there is no registry.

use super::command::{output, words};
use super::config::SOCKET;
use super::state::Identity;
use crate::oci::layer::Tree;
use crate::oci::{Image, Layer};
use crate::tools;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// What holds a pod's namespaces.
pub(super) const PAUSE: &str = "registry.k8s.io/pause:3.10";
/// The DNS server.
pub(super) const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.15.0";
/// A user land with `socat` as its program, as a conformance suite of the MCS API asks for it.
const SOCAT: &str = "docker.io/alpine/socat:1.7.4.4";
/// The same user land with no program of its own: a pod that gives only arguments states the whole command.
const NETSHOOT: &str = "docker.io/nicolaka/netshoot:v0.15";

/// Debian's packages in the user land.
const PACKAGES: &str = "dash,grep,mawk,coreutils,socat,netcat-openbsd,bind9-dnsutils,curl,iproute2";
const SUITE: &str = "bookworm";
/// How long making the user land may take: its packages come from a mirror.
const MAKING: Duration = Duration::from_secs(600);
/// How long the import of one archive may take.
const IMPORT: Duration = Duration::from_secs(300);

/// The archives of the images, made where they are missing.
pub(super) async fn archives(say: &dyn Fn(&str)) -> Result<Vec<PathBuf>> {
    let folder = tools::cache()?.join("images");
    std::fs::create_dir_all(&folder).with_context(|| format!("can not make {}", folder.display()))?;
    let mut archives = Vec::new();
    for (name, tool) in [(PAUSE, &tools::PAUSE), (COREDNS, &tools::COREDNS)] {
        archives.push(program(&folder, name, tool).await?);
    }
    archives.extend(user_lands(&folder, say).await?);
    Ok(archives)
}

/// An image of one static program.
async fn program(folder: &Path, name: &str, tool: &'static tools::Tool) -> Result<PathBuf> {
    let binary = tool.ready().await?;
    // The folder of a tool bears the hash of what it was made of.
    let version = binary.ancestors().nth(2).and_then(Path::file_name).context("no folder of the tool")?;
    let archive = folder.join(format!("{}.tar", version.to_string_lossy()));
    let entrypoint = format!("/{}", tool.name());
    let image = || -> Result<Image> {
        Ok(Image {
            names: vec![name.to_owned()],
            entrypoint: vec![entrypoint.clone()],
            layers: vec![Tree::new().copy(&entrypoint, 0o755, &binary)?.into()],
            ..Image::default()
        })
    };
    write(&archive, image)?;
    Ok(archive)
}

/// One user land under both names.
async fn user_lands(folder: &Path, say: &dyn Fn(&str)) -> Result<[PathBuf; 2]> {
    let hash = sealane_trust::sha256(format!("{SUITE} {PACKAGES}").as_bytes());
    let hash: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let archives = ["socat", "netshoot"].map(|name| folder.join(format!("{name}-{hash}.tar")));
    if archives.iter().all(|archive| archive.exists()) {
        return Ok(archives);
    }
    say("making the images of the user land from Debian's packages (once)");
    let tree = folder.join(format!(".tree-{}", std::process::id()));
    let include = format!("--include={PACKAGES}");
    let arguments =
        ["--quiet", "--format=tar", "--variant=extract", &include, SUITE, &tree.display().to_string()];
    let made = super::command::run(&mut words("mmdebstrap", &arguments), MAKING).await;
    let layer = made.and_then(|_| Layer::from_tar(&tree));
    let _may_not_be_there = std::fs::remove_file(&tree);
    let layers = vec![layer?, links()];
    for ((archive, name), entrypoint) in
        archives.iter().zip([SOCAT, NETSHOOT]).zip([Some("/usr/bin/socat"), None])
    {
        let image = || -> Result<Image> {
            Ok(Image {
                names: vec![name.to_owned()],
                entrypoint: entrypoint.into_iter().map(str::to_owned).collect(),
                environment: [("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())].into(),
                layers: layers.clone(),
                ..Image::default()
            })
        };
        write(archive, image)?;
    }
    Ok(archives)
}

/// What the packages' own scripts would have made.
fn links() -> Layer {
    let tree = Tree::new().symlink("bin/nc", "nc.openbsd").symlink("usr/bin/awk", "mawk");
    tree.directory("tmp", 0o1777).file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n").into()
}

/// An archive is in its place whole or not at all.
fn write(archive: &Path, image: impl FnOnce() -> Result<Image>) -> Result<()> {
    if archive.exists() {
        return Ok(());
    }
    let unfinished = archive.with_extension(format!("{}.new", std::process::id()));
    image()?.write(&unfinished)?;
    std::fs::rename(&unfinished, archive).with_context(|| format!("can not make {}", archive.display()))
}

/// Imports an archive into a node; the names of what was in it, as containerd says them.
pub(super) async fn import(init: Identity, archive: &Path) -> Result<String> {
    let file = File::open(archive).with_context(|| format!("can not open {}", archive.display()))?;
    // By its bytes: the node may not see the path.
    let ctr = ["ctr", "--address", SOCKET, "--namespace=k8s.io", "images", "import", "-"];
    let mut command = super::node::enter(init, &ctr);
    command.stdin(Stdio::from(file));
    let output = output(&mut command, IMPORT).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} can not be imported: {}", archive.display(), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
