//! Child processes that can not outlive their parent.

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

/// The environment variable by which a child is told whose death is its own: the parent's process id.
pub const DIE_WITH_PARENT: &str = "SEALANE_DIE_WITH_PARENT";

/// How long a process may take to say that it is ready.
pub const READY: Duration = Duration::from_secs(20);

/// How long a process may take to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// How long a command may run.
const COMMAND: Duration = Duration::from_secs(30);

/// Makes this process die with the parent that is named in [`DIE_WITH_PARENT`]; does nothing without that variable.
///
/// # Errors
/// When the variable is malformed, the kernel refuses, or the parent is already gone.
pub fn die_with_parent() -> Result<()> {
    let Some(parent) = std::env::var_os(DIE_WITH_PARENT) else { return Ok(()) };
    let parent: i32 =
        parent.to_str().and_then(|p| p.parse().ok()).context("SEALANE_DIE_WITH_PARENT is no process id")?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("can not bind to the parent's life")?;
    // The parent may have died before the line above: then nobody would send the signal.
    let now = rustix::process::getppid().map(Pid::as_raw_nonzero).map(std::num::NonZeroI32::get);
    if now == Some(parent) { Ok(()) } else { Err(anyhow!("the parent process {parent} is gone")) }
}

/// Starts processes of one binary, each with a log file.
#[derive(Debug, Clone)]
pub struct Launcher {
    binary: PathBuf,
    logs: PathBuf,
    filter: String,
    variables: Vec<(String, String)>,
}

impl Launcher {
    /// A launcher of `binary` whose children log to files in `logs`, with the given tracing filter.
    #[must_use]
    pub fn new(binary: PathBuf, logs: PathBuf, filter: &str) -> Self {
        Launcher { binary, logs, filter: filter.to_owned(), variables: Vec::new() }
    }

    /// The same, whose children have these environment variables too.
    #[must_use]
    pub fn with(&self, variables: &[(String, String)]) -> Self {
        let variables = self.variables.iter().chain(variables).cloned().collect();
        Launcher { variables, ..self.clone() }
    }

    /// Where the logs are.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .env_remove("SEALANE_CONTEXT")
            .env("SEALANE_LOG", &self.filter)
            .env("NO_COLOR", "1")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env(DIE_WITH_PARENT, std::process::id().to_string())
            // Of its own group, so that the terminal's Ctrl-C goes to the one who cleans up.
            .process_group(0);
        command
    }

    /// Starts a process that runs until it is stopped.
    ///
    /// # Errors
    /// When it can not be started or its log can not be opened.
    pub fn start<S: AsRef<OsStr>>(&self, name: &str, arguments: &[S]) -> Result<Process> {
        let log = self.logs.join(format!("{name}.log"));
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("can not open {}", log.display()))?;
        let from = file.metadata().map(|m| m.len()).unwrap_or(0);
        let mut command = self.command(arguments);
        command.stdout(file.try_clone().context("can not share the log")?).stderr(file);
        let child =
            spawn(command).with_context(|| format!("can not start {name} ({})", self.binary.display()))?;
        Ok(Process { name: name.to_owned(), child, log, from })
    }

    /// Runs a command to its end and gives what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said, or does not end in time.
    pub async fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let output = self.output(arguments).await?;
        let said = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ");
        if !output.status.success() {
            bail!(
                "`sealane {said}` failed ({}): {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        String::from_utf8(output.stdout).with_context(|| format!("`sealane {said}` did not print text"))
    }

    /// Runs a command to its end and gives its status and all that it printed.
    ///
    /// # Errors
    /// When it can not be started or does not end in time.
    pub async fn output<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<std::process::Output> {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = spawn(command).context("can not start a command")?;
        let pid = child.id();
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
        match tokio::time::timeout(COMMAND, ended).await {
            Ok(output) => {
                output.context("the command was not waited for")?.context("the command's output is lost")
            }
            Err(_) => {
                if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
                bail!("a command did not end within {COMMAND:?}")
            }
        }
    }
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    from: u64,
}

impl Process {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it was called when it was started.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until the process logs that it is ready.
    ///
    /// # Errors
    /// When it ends or the deadline passes first, with the end of its log.
    pub async fn ready(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let said = self.said();
            if said.lines().any(is_ready) {
                return Ok(());
            }
            if let Some(status) = self.ended() {
                bail!("{} ended ({status}) before it was ready:\n{}", self.name, tail(&said));
            }
            if start.elapsed() > READY {
                bail!("{} was not ready within {READY:?}:\n{}", self.name, tail(&said));
            }
            tokio::time::sleep(super::wait::INTERVAL).await;
        }
    }

    /// What it has logged since it was started.
    #[must_use]
    pub fn said(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.log) {
            let _ = file.seek(SeekFrom::Start(self.from)).and_then(|_| file.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// SIGTERM, and waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub async fn terminate(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let start = Instant::now();
        while start.elapsed() < GRACE {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            tokio::time::sleep(super::wait::INTERVAL).await;
        }
        bail!("{} did not end within {GRACE:?} after SIGTERM:\n{}", self.name, tail(&self.said()))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("can not signal {}", self.name))
    }

    /// Its resident memory in bytes, as the kernel counts it.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident(&self) -> Result<u64> {
        resident(self.child.id()).with_context(|| self.name.clone())
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The resident memory of any process in bytes, as the kernel counts it.
///
/// # Errors
/// When the process is gone.
pub fn resident(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{path}: the process is gone"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kilobytes * 1024)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The line of every component that serves: `... INFO ...: ready ...`.
fn is_ready(line: &str) -> bool {
    line.contains("INFO") && line.split_whitespace().any(|w| w == "ready" || w == "message=\"ready\"")
}

/// The last lines of a log.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

type Start = (Command, SyncSender<std::io::Result<Child>>);

/// Starts a process from a thread that lives as long as this process.
///
/// The kernel ties a child to the thread that started it, not to the process: started from a worker of some runtime,
/// it would die with that worker.
fn spawn(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Start>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, starts) = channel::<Start>();
        std::thread::spawn(move || {
            for (mut command, reply) in starts {
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, child) = sync_channel(1);
    spawner.send((command, reply)).map_err(|_| std::io::Error::other("the spawning thread is gone"))?;
    child.recv().map_err(|_| std::io::Error::other("the spawning thread is gone"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_ready_line_is_one() {
        assert!(is_ready("2026-11-21T11:00:00Z  INFO sealane_proxy::app: ready role=\"sidecar\""));
        assert!(is_ready("2026-11-21T11:00:00Z  INFO sealane_proxy::app: message=\"ready\""));
        assert!(!is_ready("2026-11-21T11:00:00Z  INFO sealane_proxy::app: endpoint became ready=true"));
        assert!(!is_ready("2026-11-21T11:00:00Z  WARN sealane_proxy::app: not ready yet"));
    }

    #[tokio::test]
    async fn a_process_says_how_it_ended() {
        let logs = tempfile::tempdir().unwrap();
        let launcher = Launcher::new("/bin/sh".into(), logs.path().into(), "info");
        let mut process = launcher.start("sh", &["-c", "echo trouble; exit 3"]).unwrap();
        let error = process.ready().await.unwrap_err().to_string();
        assert!(error.starts_with("sh ended (exit status: 3)") && error.ends_with("trouble"), "{error}");
        assert_eq!(launcher.run(&["-c", "echo fine"]).await.unwrap(), "fine\n");
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let logs = tempfile::tempdir().unwrap();
        let launcher = Launcher::new("/bin/sh".into(), logs.path().into(), "info");
        let process = launcher.start("sleeper", &["-c", "exec sleep 60"]).unwrap();
        let proc = format!("/proc/{}", process.id());
        assert!(Path::new(&proc).exists() && process.resident().unwrap() > 0);
        drop(process);
        assert!(!Path::new(&proc).exists());
    }
}
