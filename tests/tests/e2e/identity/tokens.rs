//! Join tokens that open nothing, and servers that may not see one.

use anyhow::{Context, Result, ensure};
use sealane::local::{Federation, Lab, Process, Site, SiteSpec, wait};
use sealane_core::name::TrustDomain;
use sealane_tests::impostor::{Heard, Impostor};
use sealane_tests::{PATIENCE, binary, forge, in_lab};
use sealane_trust::CertificateDer;
use sealane_trust::file::{self, Access};
use sealane_trust::issue::Authority;
use sealane_trust::join::{JoinToken, TokenKind};
use sealane_trust::tls::ALPN_H2;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A token of a federation, in a file.
async fn token(federation: &Federation, path: &Path, options: &[&str]) -> Result<JoinToken> {
    let out = path.to_string_lossy();
    let create = [&["token", "create"][..], options, &["--out", &out]].concat();
    federation.sealane(&create).await?;
    Ok(JoinToken::parse(&std::fs::read_to_string(path)?)?)
}

fn write(lab: &Lab, name: &str, token: &JoinToken) -> Result<PathBuf> {
    let path = lab.path().join(name);
    file::write(&path, token.to_text().as_bytes(), Access::Private)?;
    Ok(path)
}

fn name_of(token: &Path) -> Result<&str> {
    token.file_name().and_then(|n| n.to_str()).context("no name")
}

fn home(lab: &Lab, token: &Path) -> Result<PathBuf> {
    lab.directory(&format!("homes/{}", name_of(token)?))
}

/// Starts an agent that has nothing but a token.
fn agent(lab: &Lab, token: &Path) -> Result<Process> {
    let (name, home) = (name_of(token)?, home(lab, token)?);
    let manifests = lab.directory(&format!("homes/{name}/manifests"))?;
    let [listen, admin] = [15_000, 15_100].map(|port| lab.socket(14, 1, port).to_string());
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (state, out) = (text(&home.join("state")), text(&home.join("out")));
    let (token, manifests) = (text(token), text(&manifests));
    let arguments = ["agent", "run", "--dir", &state, "--join-token-file", &token, "--manifests", &manifests];
    let arguments =
        [&arguments[..], &["--out", &out, "--listen", &listen, "--admin-listen", &admin]].concat();
    lab.launcher().start(name, &arguments)
}

/// Starts an agent that has nothing but a token, and waits until it says this; it must not have joined by then.
async fn agent_is_refused(lab: &Lab, token: &Path, reason: &str) -> Result<()> {
    let (name, agent) = (name_of(token)?, agent(lab, token)?);
    let what = format!("the agent with {name} is told: {reason}");
    wait::until_true(&what, PATIENCE, async || {
        let said = agent.said();
        ensure!(said.contains(reason), "it said:\n{said}");
        Ok(true)
    })
    .await?;
    ensure!(!home(lab, token)?.join("state/member.json").exists(), "the agent with {name} joined");
    Ok(())
}

#[test]
fn a_token_that_ran_out_or_is_of_another_federation_is_refused_with_the_reason() {
    in_lab(async |lab| {
        let ours = Federation::found(lab, &[]).await?;
        let late = token(&ours, &lab.path().join("late"), &["--cluster", "late", "--ttl", "1s"]).await?;
        let elsewhere = Lab::new(binary::path()?, &std::env::temp_dir(), "info")?;
        let theirs = Federation::found(&elsewhere, &[]).await?;
        let path = elsewhere.path().join("east");
        let whole = token(&theirs, &path, &["--cluster", "east"]).await?;
        // Whoever has a token of theirs and comes to us with it.
        let mut foreign = whole.clone();
        foreign.endpoints.clone_from(&late.endpoints);
        let pins = write(lab, "pins-their-root", &foreign)?;
        agent_is_refused(lab, &pins, "does not hold the root that the join token pins").await?;
        foreign.root_hash = late.root_hash;
        let known = write(lab, "with-our-root", &foreign)?;
        agent_is_refused(lab, &known, "there is no such join token").await?;
        // It lives for a second, and all of the above may take less.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        agent_is_refused(lab, &lab.path().join("late"), "the join token ran out").await?;
        let server = token(&ours, &lab.path().join("server"), &["--server"]).await?;
        ensure!(server.kind == TokenKind::Server);
        agent_is_refused(lab, &lab.path().join("server"), "the join token is for a federation server")
            .await?;
        let clusters = ours.client()?.clusters().await?.clusters;
        ensure!(clusters.is_empty(), "somebody joined: {clusters:?}");
        // The same agent with a good token of ours joins: what was refused was the token.
        Site::enrol(&ours, lab, SiteSpec::new("east", 1)).await?;
        Ok(())
    });
}

/// What an attacker can present, who has the true root's certificate (it is no secret) and no key under it but, at the
/// end, that of a member's agent.
fn chains(real: &[CertificateDer<'static>], member: &Site) -> Result<Vec<sealane_trust::tls::Identity>> {
    let domain = TrustDomain::parse("sealane.local")?;
    let server = "spiffe://sealane.local/server/1";
    let fake = forge::intermediate(&domain)?;
    let root = real.last().context("no root")?.clone();
    let key = forge::authority(member)?;
    let of_a_member = forge::signing_leaf(&forge::agent(member)?, &forge::agent_key(member)?, &domain)?;
    Ok(vec![
        forge::identity(&fake, server, std::slice::from_ref(&root))?,
        // With the true issuer between, as if it had signed.
        forge::identity(&fake, server, real)?,
        forge::identity(&key, server, &[root])?,
        forge::identity(&of_a_member, server, &[])?,
        // A genuine identity of the federation that is no server's.
        forge::agent(member)?,
    ])
}

#[test]
fn a_server_that_appends_the_true_root_to_its_chain_learns_nothing() {
    in_lab(async |lab| {
        let mut federation = Federation::found(lab, &[]).await?;
        let member = Site::enrol(&federation, lab, SiteSpec::new("member", 1)).await?;
        let place = lab.socket(13, 1, 7443);
        let mut of_cluster = token(&federation, &lab.path().join("a"), &["--cluster", "east"]).await?;
        let mut of_server = token(&federation, &lab.path().join("b"), &["--server"]).await?;
        for token in [&mut of_cluster, &mut of_server] {
            token.endpoints = vec![place.to_string()];
        }
        let server = write(lab, "server-token", &of_server)?;
        federation.kill_all();
        redirect(&federation.context, place)?;
        let issuer = issuer(&federation.servers[0].directory)?;
        let chains = chains(issuer.chain(), &member)?;
        let impostor = Impostor::at(place, &chains[0], ALPN_H2).await?;
        for (number, chain) in chains.iter().enumerate() {
            let before = impostor.heard().refused;
            impostor.present(chain);
            let cluster = write(lab, &format!("token-{number}"), &of_cluster)?;
            agent_is_refused(lab, &cluster, REFUSALS[number]).await.with_context(|| number.to_string())?;
            let joined = join_server(lab, &server, number).await?;
            ensure!(joined.contains(REFUSALS[number]), "{number}: a server that joins said: {joined}");
            for command in [&["status"][..], &["token", "create", "--cluster", "x"]] {
                let error =
                    format!("{:#}", federation.sealane(command).await.err().context("it is believed")?);
                ensure!(error.contains("certificate") || error.contains("the peer"), "{number}: {error}");
            }
            let heard = impostor.heard();
            ensure!(heard.refused >= before + 4, "{number}: it was not even asked by all four: {heard:?}");
            ensure!(heard == Heard { refused: heard.refused, ..Heard::default() }, "{number}: {heard:?}");
        }
        // The same impostor with the true issuer's key is told the secret: it would have been heard.
        let true_one = forge::identity(&issuer, "spiffe://sealane.local/server/1", &[])?;
        impostor.present(&true_one);
        let _agent = agent(lab, &write(lab, "told", &of_cluster)?)?;
        wait::until_true("whoever has a server's key is told the secret", PATIENCE, async || {
            Ok(impostor.heard().has(of_cluster.secret()))
        })
        .await?;
        Ok(())
    });
}

/// Why each of [`chains`] is refused.
const REFUSALS: [&str; 5] = [
    "UnknownIssuer",
    "UnknownIssuer",
    "UnknownIssuer",
    "the peer's chain is refused",
    "the peer is spiffe://sealane.local/agent/member, which is not accepted here",
];

async fn join_server(lab: &Lab, token: &Path, number: usize) -> Result<String> {
    let directory = lab.path().join(format!("joining-{number}"));
    let (directory, token) = (directory.to_string_lossy(), token.to_string_lossy());
    let address = lab.socket(13, 2, 7443).to_string();
    let status = lab.socket(13, 2, 7444).to_string();
    let arguments = ["federation", "join", "--dir", &directory, "--token-file", &token];
    let arguments = [&arguments[..], &["--address", &address, "--status-address", &status]].concat();
    let output = lab.launcher().output(&arguments).await?;
    ensure!(!output.status.success(), "{number}: it joined");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Has the administrator look for the servers at another place.
fn redirect(context: &Path, place: std::net::SocketAddr) -> Result<()> {
    let path = context.join("context.json");
    let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    file["servers"] = serde_json::json!([{"grpc": place.to_string(), "status": place.to_string()}]);
    Ok(std::fs::write(path, serde_json::to_vec(&file)?)?)
}

fn issuer(server: &Path) -> Result<Authority> {
    let read = |name: &str| std::fs::read(server.join("pki").join(name)).with_context(|| name.to_owned());
    Ok(Authority::load(&read("issuer.pem")?, &read("issuer.key")?)?)
}
