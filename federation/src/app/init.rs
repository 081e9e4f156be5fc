//! `init`: a new federation whose first server this is.
//!
//! The storage is made here and not by `run`, so that a server whose storage was lost never founds a second
//! federation under the same id.

use super::directory::{Directory, Identity, make_empty};
use crate::args::InitArgs;
use crate::consensus::open::{Bootstrap, Config, open};
use crate::consensus::replica::Replica;
use crate::consensus::transport::{Link, Transport};
use crate::machine::Machine;
use crate::pki::Pki;
use crate::writer::command;
use anyhow::{Context, bail};
use sealane_core::command::{Action, Reply};
use sealane_core::identity::{FederationId, Principal, ServerId};
use sealane_core::name::ServiceAccount;
use sealane_core::state::Limits;
use sealane_proto::peer::v1::RaftMessage;
use sealane_trust::file::{self, Access};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const FIRST: ServerId = ServerId(1);
/// How long the only voter may take to elect itself and commit two commands.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a federation.
///
/// # Errors
/// When a directory is not empty or can not be written.
pub async fn init(args: InitArgs) -> anyhow::Result<()> {
    args.addresses.check()?;
    make_empty(&args.dir, None)?;
    make_empty(&args.admin_out, None)?;
    let federation = FederationId(sealane_trust::random()?);
    let pki = Pki::found(&args.dir, &args.trust_domain, FIRST)?;
    let identity = Identity {
        federation,
        trust_domain: args.trust_domain,
        server: FIRST,
        address: args.addresses.address,
        status_address: args.addresses.status_address,
        peers: BTreeMap::new(),
    };
    let directory = Directory { path: args.dir, identity };
    let voters = BTreeSet::from([FIRST]);
    let replica = open_alone(&directory, Bootstrap::Found { voters }).await?;
    let founded = timeout(PATIENCE, found(&replica, &directory.identity)).await;
    replica.shutdown().await;
    founded.context("the new federation did not commit its first command in time")??;
    write_context(&args.admin_out, &pki, &directory.identity)?;
    directory.store()?;
    tracing::info!(
        %federation,
        dir = %directory.path.display(),
        admin = %args.admin_out.display(),
        "federation made: start it with `run`, and keep pki/root.key safe"
    );
    Ok(())
}

/// Opens the storage without peers.
pub(super) async fn open_alone(
    directory: &Directory,
    bootstrap: Bootstrap,
) -> anyhow::Result<Replica<Machine>> {
    let me = &directory.identity;
    let config = Config::new(directory.storage(), me.server, me.federation);
    let opened = tokio::task::spawn_blocking(move || {
        open::<Machine>(&config, &bootstrap, |link| Arc::new(Nobody(link)))
    });
    Ok(opened.await??)
}

async fn found(replica: &Replica<Machine>, me: &Identity) -> anyhow::Result<()> {
    let mut status = replica.status();
    status.wait_for(|s| s.is_leader()).await.context("the replica ended")?;
    let by = || Some(Principal::Server(me.server));
    let (federation, trust_domain) = (me.federation, me.trust_domain.clone());
    let limits = Limits::default();
    let (address, status_address) = (me.address.clone(), me.status_address.clone());
    for action in [
        Action::Found { federation, trust_domain, limits },
        Action::PutServer { id: me.server, address, status_address },
    ] {
        match replica.propose(command(by(), action)?).await?.1 {
            Reply::Done => {}
            other => bail!("the first command was answered {other:?}"),
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct ContextFile {
    federation: String,
    trust_domain: String,
    servers: Vec<ServerAddresses>,
}

#[derive(Serialize)]
struct ServerAddresses {
    grpc: String,
    status: String,
}

fn write_context(out: &Path, pki: &Pki, me: &Identity) -> anyhow::Result<()> {
    pki.write_admin(out, &ServiceAccount::parse("root")?)?;
    let context = ContextFile {
        federation: me.federation.to_string(),
        trust_domain: me.trust_domain.to_string(),
        servers: vec![ServerAddresses { grpc: me.address.clone(), status: me.status_address.clone() }],
    };
    Ok(file::write(&out.join("context.json"), &serde_json::to_vec_pretty(&context)?, Access::Public)?)
}

/// The transport of a replica that is opened only to write its storage.
struct Nobody(Link);

impl Transport for Nobody {
    fn send(&self, to: ServerId, _: RaftMessage) {
        self.0.unreachable(to);
    }

    fn send_snapshot(&self, to: ServerId, _: RaftMessage, _: File) {
        self.0.snapshot_sent(to, false);
    }
}
