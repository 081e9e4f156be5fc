//! The life of an outbound connection: import, choice, dial, handshake, bytes.
//!
//! Nothing is read from the client before a peer is connected, and connected means that the handshake finished. TLS 1.3
//! lets a server refuse after that; until the first byte went either way the next candidate is tried then too, unless
//! we were refused for who we are: that is policy, not death, and would be so elsewhere.

use crate::balance::{Standing, now_ms};
use crate::connections::Connection;
use crate::detect::Speaks;
use crate::listen::explicit::ImportPort;
use crate::pick::{Seen, pick};
use crate::role::Context;
use crate::snapshot::{Choice, Dial, Via};
use crate::tcp::{Broken, Side, relay, reset_on_drop};
use crate::telemetry::{Direction, Route, Verdict};
use crate::tls::{self, ClientStream};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// All attempts of one connection together.
const ALL_ATTEMPTS: Duration = Duration::from_secs(15);
/// The most candidates that one connection tries.
const MAX_ATTEMPTS: usize = 8;

/// Serves a connection of a local application.
pub(crate) async fn serve(context: Arc<Context>, client: TcpStream, from: SocketAddr, import: ImportPort) {
    if context.drain.open() > context.max_outbound {
        context.metrics.turned_away("too_many_connections");
        return reset_on_drop(&client);
    }
    let snapshot = context.current.load();
    let outbound = snapshot.outbound.get(&import.service).cloned();
    drop(snapshot);
    let connection =
        context.connections.begin(Direction::Outbound, outbound.as_ref().map(|o| &o.service), from);
    let Some(port) = outbound.as_deref().and_then(|o| o.ports.get(&import.port)) else {
        reset_on_drop(&client);
        let ImportPort { service, port } = &import;
        return connection.end(Verdict::Refused, format!("{service} port {port} is not imported here"));
    };
    match port.speaks {
        Speaks::Opaque => opaque(&context, client, &port.choices, connection).await,
    }
}

/// Bytes: one connection for one connection.
async fn opaque(context: &Context, mut client: TcpStream, choices: &[Arc<Choice>], connection: Connection) {
    let mut attempts = Attempts::new(choices);
    loop {
        let Some((stream, choice, dial)) = attempts.next(context, &connection).await else {
            reset_on_drop(&client);
            return connection.end(Verdict::Refused, attempts.reasons);
        };
        match carry(&mut client, stream, dial, &connection).await {
            Ok(()) => return connection.end(Verdict::Closed, ""),
            Err(Ended::Retry(why)) => {
                attempts.failed(context, choice, &why);
            }
            Err(Ended::For(verdict, why)) => {
                reset_on_drop(&client);
                return connection.end(verdict, why);
            }
        }
    }
}

enum Ended {
    /// Nothing was taken from either side: another may serve.
    Retry(String),
    /// It is over.
    For(Verdict, String),
}

async fn carry(
    client: &mut TcpStream,
    mut stream: ClientStream,
    dial: &Dial,
    connection: &Connection,
) -> Result<(), Ended> {
    let result = tokio::select! {
        result = relay(client, &mut stream, connection.traffic()) => result,
        () = dial.gone.cancelled() => {
            reset_on_drop(stream.get_ref().0.socket());
            return Err(Ended::For(Verdict::Failed, "the peer's cluster was removed".into()));
        }
    };
    let Broken { side, source, touched } = match result {
        Ok(()) => return Ok(()),
        Err(broken) => broken,
    };
    if side == Side::Plain {
        // The peer must not take what it got for the whole.
        reset_on_drop(stream.get_ref().0.socket());
    } else if tls::is_refusal(&source) {
        return Err(Ended::For(Verdict::Refused, format!("the peer refuses us: {source}")));
    } else if !touched {
        return Err(Ended::Retry(format!("refused after the handshake: {source}")));
    }
    let where_ = if side == Side::Plain { "application" } else { "peer" };
    Err(Ended::For(Verdict::Failed, format!("the connection to the {where_} broke: {source}")))
}

/// The candidates of one connection, and what became of them.
struct Attempts<'a> {
    choices: &'a [Arc<Choice>],
    tried: Vec<bool>,
    count: usize,
    deadline: Instant,
    reasons: String,
}

impl<'a> Attempts<'a> {
    fn new(choices: &'a [Arc<Choice>]) -> Self {
        // A candidate that can not be dialled counts as tried.
        let tried: Vec<bool> = choices.iter().map(|c| c.dial.is_err()).collect();
        let mut reasons = String::new();
        for choice in choices {
            if let Err(unusable) = &choice.dial {
                note(&mut reasons, &format!("{} {}: {unusable}", choice.cluster, choice.via));
            }
        }
        if choices.is_empty() {
            reasons.push_str("no cluster has an endpoint for it");
        }
        Attempts { choices, tried, count: 0, deadline: Instant::now() + ALL_ATTEMPTS, reasons }
    }

    /// Connects to the next candidate that answers; `None` when there is none left.
    async fn next(
        &mut self,
        context: &Context,
        connection: &Connection,
    ) -> Option<(ClientStream, &'a Choice, &'a Dial)> {
        while self.count < MAX_ATTEMPTS {
            let choice = self.choose()?;
            let Ok(dial) = &choice.dial else { continue };
            self.count += 1;
            match timeout_at(self.deadline, tls::client::dial(dial, context.mark)).await {
                Ok(Ok((stream, address))) => {
                    choice.health.served();
                    connected(context, connection, choice, dial, &stream, address);
                    return Some((stream, choice, dial));
                }
                Ok(Err(error)) => {
                    let hint = if error.is_unrecognized() { " (not exported there, or no more)" } else { "" };
                    self.failed(context, choice, &format!("{error}{hint}"));
                }
                Err(_) => {
                    self.failed(context, choice, "no time is left");
                    return None;
                }
            }
        }
        None
    }

    fn choose(&mut self) -> Option<&'a Choice> {
        loop {
            let now = now_ms();
            let seen: Vec<Seen> = (self.choices.iter().zip(&self.tried))
                .map(|(c, tried)| Seen {
                    tier: c.tier,
                    weight: c.weight,
                    standing: c.health.standing(now),
                    tried: *tried,
                })
                .collect();
            let at = pick(&seen, rand::random())?;
            let choice = &self.choices[at];
            if seen[at].standing == Standing::HalfOpen && !choice.health.claim_trial(now) {
                // Another connection has the trial: it counts as ejected until that one knows.
                continue;
            }
            self.tried[at] = true;
            return Some(choice);
        }
    }

    fn failed(&mut self, context: &Context, choice: &Choice, why: &str) {
        if choice.health.failed(now_ms()) {
            context.metrics.ejections.inc();
            tracing::info!(cluster = %choice.cluster, via = %choice.via, why, "candidate ejected");
        }
        note(&mut self.reasons, &format!("{} {}: {why}", choice.cluster, choice.via));
    }
}

fn note(reasons: &mut String, reason: &str) {
    let separator = if reasons.is_empty() { "" } else { "; " };
    // Writing to a String does not fail.
    let _ = write!(reasons, "{separator}{reason}");
}

fn connected(
    context: &Context,
    connection: &Connection,
    choice: &Choice,
    dial: &Dial,
    stream: &ClientStream,
    address: SocketAddr,
) {
    connection.note(|facts| {
        facts.sni = Some(dial.target.to_string());
        facts.local = Some(context.identity.current().spiffe_id);
        facts.peer = tls::client::peer(stream);
        facts.cluster = Some(choice.cluster.to_string());
        facts.upstream = Some(address.to_string());
        facts.route = Some(match choice.via {
            Via::Direct(_) => Route::Direct,
            Via::Gateway | Via::GatewayFor(_) => Route::Gateway,
        });
    });
}
