//! Applications of a test: one that answers, and clients that ask again and again and count what fails.
//!
//! Law: a connection has one attempt, and so has its name where the pod says so; whatever is lost is counted. So has a
//! question, but where it got no answer and came from a port that another one came from not long before: kube-proxy leads it
//! to whoever answered that one, also where that pod has just ended. Then it has a second attempt, from a new port, as every
//! resolver makes it, and that is counted and told. Only what fails before the first success is not counted: names need a
//! moment to be known.

mod count;
mod ports;

pub use count::{Count, failures};

use anyhow::{Context, Result, bail, ensure};
use count::{Counter, Success};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use ports::Ports;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long one request may take, its name included.
const LIMIT: Duration = Duration::from_secs(8);
/// How long one datagram is waited for.
const DATAGRAM: Duration = Duration::from_millis(1500);
/// How often a client says how far it is.
const SAY: Duration = Duration::from_secs(1);
/// The longest answer that is read.
const ANSWER: usize = 1024;

/// Answers every connection with a line, until the process is killed. It takes no notice of SIGTERM: an application that is
/// taken out of service has to answer until its clients have heard of it.
///
/// # Errors
/// When it can not listen.
pub async fn serve(listen: SocketAddr, text: String) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("can not listen on {listen}"))?;
    let line = format!("{text}\n");
    loop {
        // Who is gone before it was accepted is nobody's error.
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let line = line.clone();
        tokio::spawn(async move { timeout(LIMIT, stream.write_all(line.as_bytes())).await });
    }
}

/// What a client asks for, each time anew.
#[derive(Debug, Clone)]
pub enum Request {
    /// A new connection to `HOST:PORT`, and an answer that begins so.
    Call {
        /// The name is looked up each time.
        target: String,
        /// The beginning of the answer.
        expected: String,
    },
    /// A question to a DNS server, from any port.
    Resolve {
        /// Where it is.
        server: SocketAddr,
        /// The question, as it is sent.
        packet: Vec<u8>,
        /// Where it was sent from.
        ports: Ports,
    },
}

impl Request {
    /// For the IPv4 address of a name.
    ///
    /// # Errors
    /// When the name is none.
    pub fn resolve(server: SocketAddr, name: &str) -> Result<Self> {
        let mut question = Message::new(0x5ea1, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_ascii(name).context("no name")?, RecordType::A));
        let packet = question.to_vec().context("no question")?;
        Ok(Request::Resolve { server, packet, ports: Ports::default() })
    }

    /// One request.
    async fn once(self) -> Result<Success> {
        match self {
            Request::Call { target, expected } => {
                connection(&target, &expected).await.map(|()| Success::AtOnce)
            }
            Request::Resolve { server, packet, ports } => resolved(server, &packet, &ports).await,
        }
    }
}

async fn resolved(server: SocketAddr, packet: &[u8], ports: &Ports) -> Result<Success> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let port = socket.local_addr()?.port();
    let before = ports.used(port);
    let Some(lost) = ask(socket, server, packet).await? else { return Ok(Success::AtOnce) };
    let Some(ago) = before else { bail!("{lost} to port {port}, which was new") };
    let first = format!("{lost} to port {port}, used {} ms before", ago.as_millis());
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    ports.used(socket.local_addr()?.port());
    match ask(socket, server, packet).await? {
        None => Ok(Success::Again(first)),
        Some(lost) => bail!("{first}; {lost} to the second attempt"),
    }
}

/// Begins a request in every period, whatever becomes of those before, and prints what came of them.
///
/// # Errors
/// When nothing can be printed.
pub async fn repeat(request: Request, period: Duration) -> Result<()> {
    let (mut begin, mut say) = (interval(period), interval(SAY));
    // A machine that stood still for a while does not get all at once what it missed.
    begin.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    let mut counter = Counter::default();
    loop {
        tokio::select! {
            _ = begin.tick() => {
                let request = request.clone();
                under_way.spawn(async move {
                    let begun = Instant::now();
                    let done = timeout(LIMIT, request.once()).await;
                    let done = done.unwrap_or_else(|_| Err(anyhow::anyhow!("nothing within {LIMIT:?}")));
                    (begun.elapsed(), done)
                });
            }
            Some(ended) = under_way.join_next() => {
                let (took, done) = ended.context("a request panicked")?;
                if let Some(line) = counter.add(took, done) {
                    print(&line)?;
                }
            }
            _ = say.tick() => print(&counter.line())?,
        }
    }
}

fn print(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("can not print")
}

async fn connection(target: &str, expected: &str) -> Result<()> {
    let stream = TcpStream::connect(target).await.context("can not connect")?;
    let mut text = String::new();
    stream.take(ANSWER as u64).read_to_string(&mut text).await.context("can not read")?;
    ensure!(text.starts_with(expected), "the answer is {text:?}");
    Ok(())
}

/// Asks; what came instead where no answer did. A wrong answer is an error.
async fn ask(socket: UdpSocket, server: SocketAddr, packet: &[u8]) -> Result<Option<&'static str>> {
    socket.connect(server).await.context("can not connect")?;
    socket.send(packet).await.context("can not ask")?;
    let mut buffer = [0; ANSWER];
    let length = match timeout(DATAGRAM, socket.recv(&mut buffer)).await {
        Err(_) => return Ok(Some("no answer")),
        // A host says that nobody listens there.
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return Ok(Some("a refusal")),
        Ok(received) => received.context("can not receive")?,
    };
    let message = Message::from_vec(&buffer[..length]).context("not to be read")?;
    let code = message.metadata.response_code;
    ensure!(code == ResponseCode::NoError && !message.answers.is_empty(), "{code}, {:?}", message.answers);
    Ok(None)
}
