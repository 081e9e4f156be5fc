//! `sealane kubernetes enter`: the loop around [`decide`].

use super::decide::{Disk, Place, Step, decide};
use super::record::{Record, Records, Written};
use super::{EnterArgs, Member};
use crate::client::StatusClient;
use crate::commands::{remove, token};
use crate::context::{Context as AdminContext, Reach};
use anyhow::{Context, Result, bail, ensure};
use sealane_agent::args::Kubernetes;
use sealane_core::identity::FederationId;
use sealane_core::name::ServiceAccount;
use sealane_federation::app::{self, Directory};
use sealane_federation::args::{Addresses, InitArgs, JoinArgs};
use sealane_federation::pki;
use sealane_trust::clock;
use sealane_trust::file::{self, Access};
use sealane_trust::issue::{Authority, Validity};
use sealane_trust::key::PrivateKey;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// How long all of it may take; then the pod's next start goes on with it.
const PATIENCE: Duration = Duration::from_secs(300);
/// The pause before something that did not succeed is tried again.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the token may be used by which this server joins.
const TOKEN: Duration = Duration::from_secs(300);
/// How many interrupted tries at the Secret are too many.
const LOOKS: usize = 64;

/// Makes the disk a server's of the recorded federation, and writes an administrator's context.
///
/// # Errors
/// When it can not be done in time, or the disk is of another federation.
pub async fn enter(args: EnterArgs) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let entered = timeout_at(deadline, Enter::new(args).await?.run()).await;
    entered.with_context(|| format!("not done within {} s; the next start goes on", PATIENCE.as_secs()))?
}

struct Enter {
    args: EnterArgs,
    me: Member,
    place: Place,
    records: Records,
}

impl Enter {
    async fn new(args: EnterArgs) -> Result<Self> {
        let at = args.servers.iter().position(|m| m.pod == args.pod);
        let at = at.with_context(|| format!("--pod {} is none of the pods of --server", args.pod))?;
        let me = args.servers[at].clone();
        for (index, member) in args.servers.iter().enumerate() {
            let twice =
                args.servers[..index].iter().any(|m| m.address == member.address || m.pod == member.pod);
            ensure!(!twice, "--server {}: two servers have one name or one address", member.pod);
        }
        let place = if at == 0 { Place::First } else { Place::Further };
        let kubernetes = Kubernetes {
            kubeconfig: args.kubeconfig.clone(),
            context: args.kube_context.clone(),
            namespace: args.namespace.clone(),
            replica: args.pod.clone(),
        };
        let client = sealane_agent::kubernetes::client(&kubernetes).await?;
        let records = Records::new(client, args.namespace.as_str(), &args.secret);
        Ok(Enter { args, me, place, records })
    }

    async fn run(&self) -> Result<()> {
        for _ in 0..LOOKS {
            let found = self.records.read().await?;
            let recorded = found.recorded().with_context(|| format!("the Secret {}", self.args.secret))?;
            let decided = decide(disk(&self.args.dir)?, recorded, self.place);
            match decided.with_context(|| format!("the Secret {}", self.args.secret))? {
                Step::Found => self.found().await?,
                Step::Record => {
                    let record = kept(&self.args.dir)?;
                    if self.records.write(found, &record).await? == Written::Done {
                        tracing::info!(federation = %record.federation, "federation recorded");
                    }
                }
                Step::Wait => {
                    tracing::info!(secret = self.args.secret, "no federation is recorded yet");
                    sleep(PAUSE).await;
                }
                Step::Join(federation) => {
                    let record = found.record.context("it was recorded a moment ago")?;
                    if let Err(error) = self.join(&record).await {
                        tracing::warn!(%federation, error = format!("{error:#}"), "can not join yet");
                        sleep(PAUSE).await;
                    }
                }
                Step::GoOn if !found.is_marked() => {
                    let record = found.record.clone().context("it was recorded a moment ago")?;
                    self.records.write(found, &record).await?;
                }
                Step::GoOn => {
                    let record = found.record.context("it was recorded a moment ago")?;
                    return self.ready(&record);
                }
            }
        }
        bail!("the disk and the Secret {} did not come to agree; the next start goes on", self.args.secret)
    }

    /// Makes a federation on the empty disk. Nobody knows of it before it is recorded.
    async fn found(&self) -> Result<()> {
        clear(&self.args.dir)?;
        clear(&self.args.admin_out)?;
        let (dir, admin_out) = (self.args.dir.clone(), self.args.admin_out.clone());
        let trust_domain = self.args.trust_domain.clone();
        app::init(InitArgs { dir, addresses: self.addresses(), trust_domain, admin_out }).await
    }

    /// Joins by a token of its own making: who may read the root's key may admit servers.
    async fn join(&self, record: &Record) -> Result<()> {
        self.write_admin(record)?;
        let mut context = AdminContext::load(&self.args.admin_out)?;
        let others = self.args.servers.iter().filter(|m| m.pod != self.args.pod);
        context.prefer(&others.map(|m| m.address.clone()).collect::<Vec<_>>());
        self.forget_former_self(&context).await?;
        let token = token::for_server(&context, TOKEN).await?;
        clear(&self.args.dir)?;
        let directory = tempfile::tempdir().context("can not make a temporary directory")?;
        let token_file = directory.path().join("token");
        file::write(&token_file, token.to_text().as_bytes(), Access::Private)?;
        app::join(JoinArgs { dir: self.args.dir.clone(), token_file, addresses: self.addresses() }).await
    }

    /// Takes out what this server was before its disk was lost: it would be counted as a voter for ever.
    async fn forget_former_self(&self, context: &AdminContext) -> Result<()> {
        let servers = StatusClient::new(context.clone())?.consistent(true).servers().await?.servers;
        let mine = |address: &Option<String>| address.as_ref() == Some(&self.me.address);
        for former in servers.iter().filter(|s| mine(&s.address)) {
            tracing::warn!(server = former.id, "taking out the server whose disk was lost");
            remove::take_out(context, former.id).await?;
        }
        Ok(())
    }

    /// Every server holds the root's key, so that any of them admits one whose disk was lost.
    fn ready(&self, record: &Record) -> Result<()> {
        let key = self.args.dir.join("pki").join("root.key");
        if !key.exists() {
            record.root.key().write_file(&key)?;
        }
        self.write_admin(record)?;
        tracing::info!(federation = %record.federation, "the disk is a server's of the recorded federation");
        Ok(())
    }

    fn write_admin(&self, record: &Record) -> Result<()> {
        let out = &self.args.admin_out;
        clear(out)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(out);
        made.with_context(|| format!("can not make {}", out.display()))?;
        let validity = Validity::starting(clock::now(), pki::ADMIN_VALIDITY);
        let issuer = record.root.intermediate(PrivateKey::generate()?, "Sealane administrators", validity)?;
        pki::write_admin(&issuer, out, &ServiceAccount::parse("kubernetes")?)?;
        let reach = |m: &Member| Reach { grpc: m.address.clone(), status: m.status_address.clone() };
        let servers = self.args.servers.iter().map(reach).collect();
        AdminContext::write_file(out, &record.federation.to_string(), record.root.trust_domain(), servers)
    }

    fn addresses(&self) -> Addresses {
        Addresses { address: self.me.address.clone(), status_address: self.me.status_address.clone() }
    }
}

fn disk(dir: &Path) -> Result<Disk> {
    if !dir.join("server.json").exists() {
        return Ok(Disk::NoServer);
    }
    Ok(Disk::Server(Directory::load(dir)?.identity.federation))
}

/// What a disk says of its federation, with the root's key that the founding server has.
fn kept(dir: &Path) -> Result<Record> {
    let federation: FederationId = Directory::load(dir)?.identity.federation;
    let pki = dir.join("pki");
    let key = file::read_private(&pki.join("root.key"), pki::MAX_FILE).with_context(|| {
        format!(
            "no federation is recorded, this disk is of {federation}, and the root's key is not on it: restore the Secret \
             from its copy"
        )
    })?;
    let root = Authority::load(&file::read(&pki.join("root.pem"), pki::MAX_FILE)?, &key)?;
    Ok(Record { federation, root })
}

/// Removes a directory that holds no server: what is there was left by a try that was interrupted.
fn clear(dir: &Path) -> Result<()> {
    ensure!(!dir.join("server.json").exists(), "{} holds a server", dir.display());
    match std::fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("can not remove {}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_interrupted_is_cleared() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().join("server");
        clear(&dir).unwrap();
        std::fs::create_dir_all(dir.join("store")).unwrap();
        assert_eq!(disk(&dir).unwrap(), Disk::NoServer);
        clear(&dir).unwrap();
        assert!(!dir.exists());
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("server.json"), "{}").unwrap();
        assert!(clear(&dir).is_err() && dir.join("server.json").exists());
    }
}
