//! The operator's commands, one subject a file.

pub mod add;
pub mod admin;
pub mod clusters;
pub mod confirm;
pub mod explain;
pub mod remove;
pub mod services;
pub mod status;
pub mod token;

use crate::args::Command;
use crate::client::StatusClient;
use crate::output::Format;
use anyhow::{Result, bail};

/// A command that only reads.
///
/// # Errors
/// When nobody answers or what was asked about does not exist.
pub async fn show(client: StatusClient, command: Command, format: Format) -> Result<()> {
    match command {
        Command::Status => status::run(client, format).await,
        Command::Clusters { name: None } => clusters::all(&client, format).await,
        Command::Clusters { name: Some(name) } => clusters::one(&client, &name, format).await,
        Command::Services { service: None } => services::all(&client, format).await,
        Command::Services { service: Some(service) } => services::one(&client, &service, format).await,
        Command::Endpoints(asked) => services::endpoints(&client, &asked, format).await,
        Command::Explain(asked) => explain::run(&client, &asked, format).await,
        _ => bail!("this command is not one that reads"),
    }
}

/// A value of the API that is one word, as the JSON spells it.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.replace('_', " "),
        _ => "?".to_owned(),
    }
}
