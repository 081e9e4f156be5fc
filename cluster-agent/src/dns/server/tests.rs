//! A real server on loopback, asked by datagrams and streams.

use super::*;
use crate::dns::tests as dns;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use sealane_core::service::{Protocol, ServiceType};
use tokio::task::JoinHandle;

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    zone: watch::Sender<Option<Arc<Zone>>>,
    metrics: Arc<DnsMetrics>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (zone, metrics, stop) =
            (watch::Sender::new(None), Arc::<DnsMetrics>::default(), CancellationToken::new());
        let address = sockets.address();
        let server = Server { zone: zone.subscribe(), metrics: metrics.clone() };
        let task = tokio::spawn(serve(sockets, server, stop.clone()));
        Running { address, zone, metrics, stop, task }
    }

    async fn stream(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ends(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task).await.unwrap().unwrap();
    }
}

/// A headless service of so many endpoints.
fn pets(count: u8) -> Arc<Zone> {
    let candidates = (0..count).map(|n| dns::direct("west", None, &format!("10.2.0.{n}"))).collect();
    let ports = vec![dns::port("tcp", Protocol::Tcp, 42)];
    let pets = dns::outbound("shop/pets", ServiceType::Headless, ports, candidates, &[]);
    Arc::new(Zone::new(dns::common(&["shop"], vec![pets]), &[]))
}

fn query(id: u16) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii("pets.shop.svc.clusterset.local.").unwrap();
    message.add_query(Query::query(name, RecordType::A));
    message.to_vec().unwrap()
}

fn framed(packet: &[u8]) -> Vec<u8> {
    [&u16::try_from(packet.len()).unwrap().to_be_bytes(), packet].concat()
}

async fn datagram(to: SocketAddr, packet: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket.send(packet).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let length = tokio::time::timeout(SOON, socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn next(stream: &mut TcpStream) -> Message {
    let mut buffer = Vec::new();
    assert!(tokio::time::timeout(SOON, read_any(stream, &mut buffer)).await.unwrap());
    Message::from_vec(&buffer).unwrap()
}

async fn read_any(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    let Ok(length) = stream.read_u16().await else { return false };
    buffer.resize(usize::from(length), 0);
    stream.read_exact(buffer).await.is_ok()
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(SOON, read_any(stream, &mut Vec::new())).await.is_ok_and(|read| !read)
}

#[tokio::test]
async fn datagrams_and_streams_are_answered_from_the_zone_of_now() {
    let running = Running::start().await;
    let code = |m: &Message| (m.metadata.response_code, m.metadata.truncation, m.answers.len());
    assert_eq!(code(&datagram(running.address, &query(1)).await), (ResponseCode::ServFail, false, 0));
    running.zone.send_replace(Some(pets(200)));
    let short = datagram(running.address, &query(2)).await;
    let (result, truncated, answers) = code(&short);
    assert_eq!((short.metadata.id, result, truncated), (2, ResponseCode::NoError, true));
    assert!(answers < 200);
    let mut stream = running.stream().await;
    // Two at once, and one in pieces.
    stream.write_all(&[framed(&query(3)), framed(&query(4))].concat()).await.unwrap();
    for id in [3, 4] {
        let whole = next(&mut stream).await;
        assert_eq!((whole.metadata.id, code(&whole)), (id, (ResponseCode::NoError, false, 200)));
    }
    for byte in framed(&query(5)) {
        stream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(next(&mut stream).await.metadata.id, 5);
    running.zone.send_replace(Some(pets(0)));
    stream.write_all(&framed(&query(6))).await.unwrap();
    assert_eq!(code(&next(&mut stream).await), (ResponseCode::NXDomain, false, 0));
    let mut registry = prometheus_client::registry::Registry::default();
    running.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let mut counted: Vec<&str> = text.lines().filter(|l| l.starts_with("dns_queries_total")).collect();
    counted.sort_unstable();
    let line = |transport: &str, rcode: &str, count: u8| {
        format!("dns_queries_total{{transport=\"{transport}\",type=\"A\",rcode=\"{rcode}\"}} {count}")
    };
    let expected = [
        line("tcp", "NOERROR", 3),
        line("tcp", "NXDOMAIN", 1),
        line("udp", "NOERROR", 1),
        line("udp", "SERVFAIL", 1),
    ];
    assert_eq!(counted, expected);
    running.ends().await;
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn what_is_no_question_ends_a_stream_and_disturbs_nobody() {
    let running = Running::start().await;
    running.zone.send_replace(Some(pets(1)));
    let answer = datagram(running.address, &query(1)).await.to_vec().unwrap();
    for packet in [vec![0xff, 0xff], framed(b"short"), framed(&answer), framed(&[])] {
        let mut stream = running.stream().await;
        stream.write_all(&packet).await.unwrap();
        assert!(is_closed(&mut stream).await, "{packet:?}");
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for packet in [&b""[..], b"short", &answer, &[0xff; 9_000]] {
        socket.send_to(packet, running.address).await.unwrap();
    }
    assert_eq!(datagram(running.address, &query(2)).await.metadata.id, 2);
    assert!(running.metrics.dropped.get() >= 3, "{}", running.metrics.dropped.get());
    running.ends().await;
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_no_more() {
    let running = Running::start().await;
    running.zone.send_replace(Some(pets(1)));
    let mut streams = Vec::new();
    for id in 0..u16::try_from(CONNECTIONS_EACH).unwrap() {
        let mut stream = running.stream().await;
        stream.write_all(&framed(&query(id))).await.unwrap();
        assert_eq!(next(&mut stream).await.metadata.id, id);
        streams.push(stream);
    }
    let mut late = running.stream().await;
    assert!(is_closed(&mut late).await);
    assert_eq!(running.metrics.refused.get(), 1);
    // Another address has its own.
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(running.address).await.unwrap();
    other.write_all(&framed(&query(7))).await.unwrap();
    assert_eq!(next(&mut other).await.metadata.id, 7);
    drop(streams.pop());
    // The server sees the end when it reads next.
    let again = async {
        loop {
            let mut stream = running.stream().await;
            if stream.write_all(&framed(&query(8))).await.is_ok()
                && read_any(&mut stream, &mut Vec::new()).await
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, again).await.unwrap();
    running.ends().await;
}

#[test]
fn places_are_counted_by_address_and_in_all() {
    let open = Open::default();
    let address = |n: usize| IpAddr::from([10, 0, 0, u8::try_from(n).unwrap()]);
    let places: Vec<Place> =
        (0..CONNECTIONS).map(|n| open.take(address(n / CONNECTIONS_EACH)).unwrap()).collect();
    assert!(open.take(address(200)).is_none(), "all are taken");
    drop(places);
    assert!(open.take(address(200)).is_some());
    assert_eq!(open.0.lock().unwrap().len(), 0, "nothing is kept of those who left");
}

#[tokio::test]
async fn who_is_silent_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let server = Server { zone: watch::Sender::new(None).subscribe(), metrics: Arc::default() };
    // Half a request, and no more.
    client.write_all(&framed(&query(1))[..9]).await.unwrap();
    let (began, idle) = (tokio::time::Instant::now(), Duration::from_millis(60));
    let stop = CancellationToken::new();
    let conversed = converse(stream, &server, idle, &stop);
    tokio::time::timeout(SOON, conversed).await.unwrap().unwrap();
    assert!(began.elapsed() >= idle, "{:?}", began.elapsed());
    assert!(is_closed(&mut client).await);
}
