//! One tool, from its module into the cache.

use super::{Tool, required};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a build says that it goes on.
const PROGRESS: Duration = Duration::from_secs(20);
/// How long the longest build may take: the first of a slow machine also downloads a gigabyte.
const LIMIT: Duration = Duration::from_secs(3600);
const LOOK: Duration = Duration::from_millis(100);

pub(super) const NO_GO: &str = "go is not in PATH: these programs are built from their Go modules. Install Go 1.26 or newer \
                     (https://go.dev/dl) and try again; what is built is kept.";

/// Whether tools can be built here at all.
pub(super) fn go_is_there() -> bool {
    let asked = Command::new("go").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// Builds a tool of the module in `sources` to `binary`, unless another process has done so meanwhile.
pub(super) fn build(tool: &Tool, sources: &Path, binary: &Path) -> Result<()> {
    let bin = binary.parent().context("the cache has no folder")?;
    std::fs::create_dir_all(bin).with_context(|| format!("can not make {}", bin.display()))?;
    let _lock = lock(&bin.with_file_name("lock"), tool)?;
    if binary.exists() {
        return Ok(());
    }
    remove_unfinished(bin)?;
    let unfinished = bin.join(format!(".{}.{}", tool.name, std::process::id()));
    let log = bin.with_file_name(format!("{}.log", tool.name));
    let start = Instant::now();
    eprintln!("building {} (once; a first build takes up to some minutes)", tool.name);
    let go = go(tool, sources, &unfinished, &log)?;
    let status = watch(go, tool, start)?;
    if !status.success() {
        bail!("`go build {}` failed ({status}):\n{}", tool.package, tail(&log));
    }
    std::fs::rename(&unfinished, binary).with_context(|| format!("can not make {}", binary.display()))?;
    eprintln!("building {}: done, {} s", tool.name, start.elapsed().as_secs());
    Ok(())
}

/// One build at a time in a folder: two of the same module would do the same work at once.
fn lock(path: &Path, tool: &Tool) -> Result<File> {
    let file = File::create(path).with_context(|| format!("can not make {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(file),
        Err(Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error).with_context(|| format!("can not lock {}", path.display())),
    }
    eprintln!("{} waits for another process that builds tools", tool.name);
    flock(&file, FlockOperation::LockExclusive)
        .with_context(|| format!("can not lock {}", path.display()))?;
    Ok(file)
}

/// What builds left that were killed: only whoever holds the lock builds.
fn remove_unfinished(bin: &Path) -> Result<()> {
    for entry in std::fs::read_dir(bin)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn go(tool: &Tool, sources: &Path, output: &Path, log: &Path) -> Result<Child> {
    let log = File::create(log).with_context(|| format!("can not make {}", log.display()))?;
    let mut command = Command::new("go");
    command
        .current_dir(sources)
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "")
        .env("GOWORK", "off")
        .args(["build", "-trimpath", "-ldflags", &linking(tool, sources)?, "-o"])
        .arg(output)
        .arg(tool.package)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("can not share the log")?)
        .stderr(log);
    match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(NO_GO),
        child => child.context("can not run go"),
    }
}

/// The linker's flags: without its version an API server calls itself v0.0.0-master, and Helm refuses it.
fn linking(tool: &Tool, sources: &Path) -> Result<String> {
    let stated = match tool.module {
        "k8s" => kubernetes_version(&required(sources, "k8s.io/kubernetes")?)?,
        "coredns" => String::new(),
        "helm" => {
            format!("-X helm.sh/helm/v4/internal/version.version={}", required(sources, "helm.sh/helm/v4")?)
        }
        _ => String::new(),
    };
    Ok(format!("-s -w {stated}").trim_end().to_owned())
}

fn kubernetes_version(version: &str) -> Result<String> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().context("no major version")?, numbers.next().context("no minor")?);
    let set = |package: &str| {
        format!(
            "-X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor} \
             -X {package}.gitTreeState=clean -X {package}.gitCommit=unknown"
        )
    };
    Ok(format!("{} {}", set("k8s.io/component-base/version"), set("k8s.io/client-go/pkg/version")))
}

fn watch(mut go: Child, tool: &Tool, start: Instant) -> Result<ExitStatus> {
    let mut said = start;
    loop {
        if let Some(status) = go.try_wait().context("go was not waited for")? {
            return Ok(status);
        }
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            eprintln!("building {}: {} s", tool.name, start.elapsed().as_secs());
        }
        if start.elapsed() > LIMIT {
            let killed = go.kill().and_then(|()| go.wait());
            ensure!(killed.is_ok(), "go does not end");
            bail!("`go build {}` did not end within {LIMIT:?}", tool.package);
        }
        std::thread::sleep(LOOK);
    }
}

/// The end of what go said.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_is_told_its_version() {
        let flags = kubernetes_version("v1.37.1").unwrap();
        assert!(flags.starts_with(
            "-X k8s.io/component-base/version.gitVersion=v1.37.1 \
             -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37 "
        ));
        assert!(flags.contains(" -X k8s.io/client-go/pkg/version.gitVersion=v1.37.1 "));
    }

    #[test]
    fn a_build_that_was_killed_leaves_nothing_that_looks_whole() {
        let bin = tempfile::tempdir().unwrap();
        std::fs::write(bin.path().join(".etcd.17"), "half").unwrap();
        std::fs::write(bin.path().join("kubectl"), "whole").unwrap();
        remove_unfinished(bin.path()).unwrap();
        let left: Vec<_> = std::fs::read_dir(bin.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kubectl"]);
    }
}
