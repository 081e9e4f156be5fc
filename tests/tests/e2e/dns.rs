//! Names under `clusterset.local`, asked of real agents by real packets.

use anyhow::{Context, Result, bail, ensure};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use rustix::process::Signal;
use sealane::local::{Federation, Lab, PodSpec, Site, SiteSpec, http, inspect, wait};
use sealane_tests::{PATIENCE, Pair, in_lab};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// Where a site's agent answers DNS.
fn server(lab: &Lab, block: u8) -> SocketAddr {
    lab.socket(block, 1, 15_053)
}

/// A site whose agent answers DNS.
fn answering(lab: &Lab, name: &str, block: u8) -> SiteSpec {
    let mut spec = SiteSpec::new(name, block);
    spec.agent = vec!["--dns-listen".into(), server(lab, block).to_string()];
    spec
}

/// What a server says, by UDP and by TCP alike: the code, and the answers without their owner, in order.
async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Result<(ResponseCode, Vec<String>)> {
    let mut question = Message::new(0x5ea1, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(format!("{name}.clusterset.local."))?, kind));
    let packet = question.to_vec()?;
    let both =
        async { Ok::<_, anyhow::Error>((datagram(server, &packet).await?, stream(server, &packet).await?)) };
    let (by_udp, by_tcp) = tokio::time::timeout(ANSWER, both).await.context("no answer in time")??;
    let said = |message: &Message| {
        let mut records: Vec<String> =
            message.answers.iter().map(|r| format!("{} {}", r.ttl, r.data)).collect();
        records.sort_unstable();
        (message.metadata.response_code, records)
    };
    for message in [&by_udp, &by_tcp] {
        ensure!(message.metadata.id == 0x5ea1 && message.queries == question.queries, "{message:?}");
    }
    ensure!(said(&by_udp) == said(&by_tcp), "{by_udp:?} by UDP, {by_tcp:?} by TCP");
    Ok(said(&by_udp))
}

async fn datagram(server: SocketAddr, packet: &[u8]) -> Result<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; 65_535];
    let length = socket.recv(&mut buffer).await?;
    Ok(Message::from_vec(&buffer[..length])?)
}

async fn stream(server: SocketAddr, packet: &[u8]) -> Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(u16::try_from(packet.len())?).await?;
    stream.write_all(packet).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    Ok(Message::from_vec(&buffer)?)
}

/// Waits until a name is answered so; says how long it took.
async fn answers(server: SocketAddr, name: &str, code: ResponseCode, records: &[&str]) -> Result<Duration> {
    let what = format!("{name} is answered {code} {records:?}");
    wait::until_true(&what, PATIENCE, async || {
        let said = ask(server, name, RecordType::A).await?;
        if said.0 != code || said.1 != records {
            bail!("it is answered {said:?}");
        }
        Ok(true)
    })
    .await
}

/// The address at which the import of a site is served.
async fn own_address(site: &Site, service: &str) -> Result<IpAddr> {
    let config = inspect::config(site.pod("client")?.admin).await?;
    let found = config.outbound.iter().find(|o| o.service == service).context("it is not imported")?;
    Ok(found.addresses.first().context("it has no address")?.parse()?)
}

/// A name is there with the export and gone without it, and leads to where the import is served.
#[test]
fn a_name_comes_and_goes_with_its_export() {
    in_lab(async |lab| {
        let east = answering(lab, "east", 1);
        let mut pair = Pair::with(lab, 1, east, SiteSpec::new("west", 3)).await?;
        let dns = server(lab, 1);
        let address = own_address(&pair.east, "shop/echo").await?;
        answers(dns, "echo.shop.svc", ResponseCode::NoError, &[&format!("5 {address}")]).await?;
        let (code, srv) = ask(dns, "_http._tcp.echo.shop.svc", RecordType::SRV).await?;
        ensure!(
            code == ResponseCode::NoError && srv == ["5 0 100 80 echo.shop.svc.clusterset.local."],
            "{srv:?}"
        );
        let (_, version) = ask(dns, "dns-version", RecordType::TXT).await?;
        ensure!(version == ["5 1.0.0"], "{version:?}");

        // A pod that listens at the imports' own addresses is reached by name.
        let mut by_name = PodSpec::client("by-name", "client", lab.address(8, 30), 15_008);
        by_name.options = vec!["--listen-imports".into()];
        pair.east.start_pod(by_name).await?;
        wait::until_true("the name leads to the service", PATIENCE, async || {
            let answer: sealane::app::Greeting =
                http::ask(SocketAddr::new(address, 80), "by name", ANSWER).await?.json()?;
            Ok(answer.name == "west/echo-1")
        })
        .await?;

        answers(dns, "cart.shop.svc", ResponseCode::NXDomain, &[]).await?;
        pair.west.serve("shop", "cart", 80)?;
        pair.west.export("shop", "cart")?;
        let came = wait::until_true("the name is there", PATIENCE, async || {
            Ok(ask(dns, "cart.shop.svc", RecordType::A).await?.1.len() == 1)
        })
        .await?;
        pair.west.unexport("shop", "cart")?;
        let went = answers(dns, "cart.shop.svc", ResponseCode::NXDomain, &[]).await?;
        println!("a name is there {came:?} after the export and gone {went:?} after the un-export");
        let status = inspect::agent(pair.east.agent_admin()).await?;
        let listen = serde_json::json!([dns.to_string()]);
        ensure!(
            status["dns"] == serde_json::json!({"listen": listen, "known": true, "imports": 1}),
            "{}",
            status["dns"]
        );
        Ok(())
    });
}

/// With the store away, and over a restart, names stay what they were; of an agent that knows no view, none is said to
/// be absent.
#[test]
fn names_survive_the_store_and_a_restart() {
    in_lab(async |lab| {
        let east = answering(lab, "east", 1);
        let mut pair = Pair::with(lab, 1, east, SiteSpec::new("west", 3)).await?;
        let dns = server(lab, 1);
        let address = format!("5 {}", own_address(&pair.east, "shop/echo").await?);
        let there = async || answers(dns, "echo.shop.svc", ResponseCode::NoError, &[&address]).await;
        there().await?;
        wait::until_true("the agent has its view on disk", PATIENCE, async || {
            let status = inspect::agent(pair.east.agent_admin()).await?;
            Ok(status["view"]["kept_revision"] == status["view"]["revision"])
        })
        .await?;
        pair.federation.kill_all();
        there().await?;
        pair.east.kill_agent();
        pair.east.start_agent().await?;
        there().await?;
        answers(dns, "other.shop.svc", ResponseCode::NXDomain, &[]).await?;

        pair.east.kill_agent();
        std::fs::remove_file(pair.east.state().join("view"))?;
        let unknown = answers(dns, "echo.shop.svc", ResponseCode::ServFail, &[]);
        tokio::select! {
            started = pair.east.start_agent() => bail!("it is ready without a view: {started:?}"),
            answered = unknown => answered?,
        };
        let other = ask(dns, "other.shop.svc", RecordType::A).await?;
        ensure!(other == (ResponseCode::ServFail, vec![]), "{other:?}");
        pair.federation.start_all().await?;
        there().await?;
        Ok(())
    });
}

const HEADLESS: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: pets\n  namespace: shop\n\
     spec:\n  type: ClusterIP\n  clusterIP: None\n  ports:\n  - name: http\n    protocol: TCP\n    port: 80\n";

fn slice(endpoints: &[(&str, Option<&str>, bool)]) -> String {
    let endpoint = |(address, hostname, ready): &(&str, Option<&str>, bool)| {
        let hostname = hostname.map(|name| format!("  hostname: {name}\n")).unwrap_or_default();
        format!("- addresses:\n  - {address}\n{hostname}  conditions:\n    ready: {ready}\n")
    };
    let endpoints: String = endpoints.iter().map(endpoint).collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: pets-1\n  namespace: shop\n  \
         labels:\n    kubernetes.io/service-name: pets\naddressType: IPv4\nports:\n- name: http\n  protocol: TCP\n  \
         port: 8080\nendpoints:\n{endpoints}"
    )
}

fn pets(site: &Site, endpoints: &[(&str, Option<&str>, bool)]) -> Result<()> {
    site.apply("shop.pets.service", HEADLESS)?;
    site.apply("shop.pets.slice", &slice(endpoints))?;
    site.export("shop", "pets")
}

/// A headless name answers the ready endpoints that can be reached at their own address, and no others: what another
/// network calls 10.2.0.1 is something else here.
#[test]
fn a_headless_name_answers_what_is_reached_by_its_address() {
    in_lab(async |lab| {
        let federation = Federation::found(lab, &[]).await?;
        let (east, north, west) = tokio::try_join!(
            Site::enrol(&federation, lab, answering(lab, "east", 1).in_network("flat")),
            Site::enrol(&federation, lab, SiteSpec::new("north", 3).in_network("flat")),
            Site::enrol(&federation, lab, SiteSpec::new("west", 5)),
        )?;
        let dns = server(lab, 1);
        answers(dns, "pets.shop.svc", ResponseCode::NXDomain, &[]).await?;
        pets(&west, &[("10.2.0.1", Some("pet-0"), true)])?;
        wait::until_true("east imports the pets of west", PATIENCE, async || {
            Ok(inspect::written_clusters(&east.out(), "shop", "pets")?.contains("west"))
        })
        .await?;
        answers(dns, "pets.shop.svc", ResponseCode::NXDomain, &[]).await?;
        pets(
            &north,
            &[("10.3.0.1", Some("pet-0"), true), ("10.3.0.2", None, true), ("10.3.0.3", None, false)],
        )?;
        pets(&east, &[("10.1.0.1", Some("pet-0"), true)])?;
        answers(dns, "pets.shop.svc", ResponseCode::NoError, &["5 10.1.0.1", "5 10.3.0.1", "5 10.3.0.2"])
            .await?;
        for (name, address) in
            [("pet-0.east", "10.1.0.1"), ("pet-0.north", "10.3.0.1"), ("10-3-0-2.north", "10.3.0.2")]
        {
            let address = format!("5 {address}");
            answers(dns, &format!("{name}.pets.shop.svc"), ResponseCode::NoError, &[&address]).await?;
        }
        let (_, srv) = ask(dns, "_http._tcp.pets.shop.svc", RecordType::SRV).await?;
        let target = |name: &str| format!("5 0 100 8080 {name}.pets.shop.svc.clusterset.local.");
        ensure!(srv == ["10-3-0-2.north", "pet-0.east", "pet-0.north"].map(target), "{srv:?}");
        for name in ["pet-0.west", "10-2-0-1.west", "west", "10-3-0-3.north"] {
            let said = ask(dns, &format!("{name}.pets.shop.svc"), RecordType::A).await?;
            ensure!(said == (ResponseCode::NXDomain, vec![]), "{name}: {said:?}");
        }
        east.unexport("shop", "pets")?;
        north.apply("shop.pets.slice", &slice(&[("10.3.0.1", Some("pet-0"), false)]))?;
        answers(dns, "pets.shop.svc", ResponseCode::NXDomain, &[]).await?;
        Ok(())
    });
}

/// An agent that is asked to end says so at once, and answers on: those who ask hear of it later than it does.
#[test]
fn an_agent_that_goes_answers_on_and_is_not_ready() {
    in_lab(async |lab| {
        let mut east = answering(lab, "east", 1);
        east.agent.extend(["--linger".to_owned(), "1h".to_owned()]);
        let pair = Pair::with(lab, 1, east, SiteSpec::new("west", 3)).await?;
        let (admin, mut agent) = (pair.east.agent_admin(), pair.east.agent.context("no agent")?);
        agent.signal(Signal::TERM)?;
        wait::until_true("it is not ready", PATIENCE, async || {
            let said = http::get(admin, "/readyz").await?;
            Ok(said.status == 503 && said.body == b"it was asked to stop\n")
        })
        .await?;
        let (code, version) = ask(server(lab, 1), "dns-version", RecordType::TXT).await?;
        ensure!(code == ResponseCode::NoError && version == ["5 1.0.0"], "{code} {version:?}");
        ensure!(agent.ended().is_none(), "it ended: {}", agent.said());
        // Whoever can not wait says it twice.
        let ended = agent.terminate().await?;
        ensure!(ended.success(), "{ended}");
        Ok(())
    });
}
