//! From the command line to whoever does it, each on the runtime that suits it.

use crate::args::{Args, ClusterCommand, Command, GlobalArgs, ServerCommand};
use crate::client::StatusClient;
use crate::context::{Context as AdminContext, default_directory};
use crate::kubernetes::KubernetesCommand;
use crate::output::Format;
use crate::{app, commands, demo, kubernetes, local, uninstall};
use anyhow::{Context, Result, ensure};
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

/// Does what the command line says.
///
/// # Errors
/// When it fails; [`crate::exit::code`] gives the exit code.
pub fn run(args: Args) -> Result<ExitCode> {
    let Args { global, command } = args;
    if !command.asks_servers() {
        refuse(&global)?;
    }
    match command {
        Command::Federation(args) => several()?.block_on(sealane_federation::run(args))?,
        Command::Agent(args) => several()?.block_on(sealane_agent::run(args))?,
        Command::Proxy(args) => workers(args.workers())?.block_on(sealane_proxy::run(*args))?,
        Command::App(args) => operator(app::run(args))?,
        Command::Guard { directory } => local::guard::stand(&directory)?,
        Command::Kubernetes(KubernetesCommand::Enter(args)) => {
            several_logged("info", kubernetes::enter(args))?
        }
        Command::Uninstall(args) => several_logged("info", uninstall::uninstall(args))?,
        Command::Demo(args) => return several_logged("warn", demo::run(args)),
        command => operator(administer(global, command))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Global options before a command that asks no server. Who gives kubectl's --context means another cluster than the one
/// that would be taken.
fn refuse(global: &GlobalArgs) -> Result<()> {
    let given = global.context.is_some()
        && global.context.as_deref().map(Path::as_os_str) != std::env::var_os("SEALANE_CONTEXT").as_deref();
    ensure!(
        !given,
        "--context is an administrator's directory, which nothing is asked of here: --kube-context names the context of \
         --kubeconfig"
    );
    ensure!(
        global.output == Format::default() && !global.consistent,
        "--output and --consistent are for commands that ask the servers, which this one does not"
    );
    Ok(())
}

async fn administer(global: GlobalArgs, command: Command) -> Result<()> {
    let directory = global.context.clone().unwrap_or_else(default_directory);
    let context = AdminContext::load(&directory)?;
    context.check_expiry()?;
    let format = global.output;
    match command {
        Command::Token(command) => commands::token::run(&context, command, format).await,
        Command::Cluster(ClusterCommand::Remove { name }) => {
            commands::remove::cluster(&context, &name, format).await
        }
        Command::Cluster(ClusterCommand::Add(args)) => commands::add::run(&context, args, format).await,
        Command::Cluster(ClusterCommand::ConfirmLapses) => commands::confirm::lapses(&context, format).await,
        Command::Server(ServerCommand::RaiseVersion) => commands::confirm::version(&context, format).await,
        Command::Server(ServerCommand::Remove { id }) => commands::remove::server(&context, id, format).await,
        command => {
            let client = StatusClient::new(context)?.consistent(global.consistent);
            commands::show(client, command, format).await
        }
    }
}

fn workers(count: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(count)
        .enable_all()
        .build()
        .context("can not start the runtime")
}

fn several() -> Result<Runtime> {
    Builder::new_multi_thread().enable_all().build().context("can not start the runtime")
}

/// One thread is enough for a command; warnings go to standard error.
fn operator<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    log("warn");
    Builder::new_current_thread().enable_all().build().context("can not start the runtime")?.block_on(work)
}

fn several_logged<T>(level: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    log(level);
    several()?.block_on(work)
}

fn log(level: &str) {
    let filter = std::env::var("SEALANE_LOG").unwrap_or_else(|_| level.to_owned());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}
