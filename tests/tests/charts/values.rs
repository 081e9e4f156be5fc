//! Which values the charts take, and which they refuse.

use super::{ready, understood};
use anyhow::{Context, Result, bail};
use sealane_tests::charts::{containers, objects, render};

#[test]
fn values_that_nobody_knows_are_refused_by_name() -> Result<()> {
    if !ready("values_that_nobody_knows_are_refused_by_name") {
        return Ok(());
    }
    let refused = [
        ("sealane-crds", "mcs.instal=auto", "instal"),
        ("sealane-crds", "mcs.install=sometimes", "/mcs/install"),
        ("sealane-federation", "servers.replicas=2", "/servers/replicas"),
        ("sealane-federation", "servers.replica=3", "replica"),
        ("sealane-federation", "servers.addresses[0].grpc=here", "/servers/addresses/0"),
        (
            "sealane-federation",
            "servers.addresses[0].grpc=a:1,servers.addresses[0].status=a:2",
            "1 entries for 3 servers",
        ),
        ("sealane-federation", "external.enabled=true", "needs servers.addresses"),
        ("sealane-federation", "image.digest=sha256:abc", "/image/digest"),
        ("sealane-cluster", "agent.replicas=0", "/agent/replicas"),
        ("sealane-cluster", "agents.replicas=2", "agents"),
        ("sealane-cluster", "agent.persistence.size=big", "/agent/persistence/size"),
        ("sealane-cluster", "cluster.gatewayAddresses={nowhere}", "/cluster/gatewayAddresses/0"),
        ("sealane-cluster", "join.method=oidc", "/join/method"),
        ("sealane-cluster", "join.method=serviceAccount", "/join/federation"),
        ("sealane-cluster", "join.servers={nowhere}", "/join/servers/0"),
        ("sealane-cluster", "join.tokenExpirationSeconds=60", "/join/tokenExpirationSeconds"),
        ("sealane-cluster", "gateway.service.type=Tunnel", "/gateway/service/type"),
        ("sealane-cluster", "gateway.service.port=0", "/gateway/service/port"),
        ("sealane-cluster", "agent.resources.request.cpu=1", "request"),
    ];
    refused_by_what_they_say(&refused)
}

/// Values that the program would refuse, after which its pod would start again and again; or that would do nothing.
#[test]
fn values_that_the_program_would_not_take_are_refused_by_name() -> Result<()> {
    if !ready("values_that_the_program_would_not_take_are_refused_by_name") {
        return Ok(());
    }
    refused_by_what_they_say(&REFUSED_OF_FEDERATION)?;
    refused_by_what_they_say(&REFUSED_OF_CLUSTER)
}

const REFUSED_OF_FEDERATION: [(&str, &str, &str); 14] = [
    ("sealane-federation", "servers.certificateTtl=1w", "/servers/certificateTtl"),
    ("sealane-federation", "servers.certificateTtl=1s", "servers.certificateTtl is 1s: give 2s to 7d"),
    ("sealane-federation", "servers.certificateTtl=169h", "servers.certificateTtl is 169h: give 2s to 7d"),
    ("sealane-federation", "servers.log=verbose", "/servers/log"),
    ("sealane-federation", "servers.log=info\\,sealane_federation=loud", "/servers/log"),
    ("sealane-federation", "servers.logFormat=xml", "/servers/logFormat"),
    ("sealane-federation", "servers.listenAddress=999.0.0.1", "/servers/listenAddress"),
    (
        "sealane-federation",
        "servers.listenAddress=[:::]",
        "servers.listenAddress: \"[:::]\" is no IPv6 address",
    ),
    ("sealane-federation", "external.nodePorts[0].grpc=70000", "/external/nodePorts/0/grpc"),
    (
        "sealane-federation",
        "servers.replicas=1,servers.addresses[0].grpc=a:70000,servers.addresses[0].status=a:2",
        "/servers/addresses/0/grpc",
    ),
    (
        "sealane-federation",
        "servers.replicas=1,servers.addresses[0].grpc=0.0.0.0:1,servers.addresses[0].status=a:2",
        "servers.addresses: \"0.0.0.0:1\" is no address that others can dial",
    ),
    (
        "sealane-federation",
        "servers.replicas=1,servers.addresses[0].grpc=a:1,servers.addresses[0].status=[fd00:::1]:2",
        "servers.addresses: \"[fd00:::1]:2\" is no IPv6 address",
    ),
    (
        "sealane-federation",
        "servers.replicas=1,servers.addresses[0].grpc=a:1,servers.addresses[0].status=a:1",
        "servers.addresses: a:1 is given twice",
    ),
    ("sealane-federation", "federation.trustDomain=Sealane", "/federation/trustDomain"),
];

const REFUSED_OF_CLUSTER: [(&str, &str, &str); 18] = [
    ("sealane-cluster", "cluster.interestSelector=team in (a)", "/cluster/interestSelector"),
    ("sealane-cluster", "cluster.interestSelector=team!=a", "/cluster/interestSelector"),
    ("sealane-cluster", "cluster.interestSelector=team==a", "/cluster/interestSelector"),
    ("sealane-cluster", "cluster.network=Flat", "/cluster/network"),
    ("sealane-cluster", "cluster.network=flat-", "/cluster/network"),
    ("sealane-cluster", "cluster.region=my region", "/cluster/region"),
    ("sealane-cluster", "agent.log=verbose", "/agent/log"),
    ("sealane-cluster", "agent.logFormat=xml", "/agent/logFormat"),
    ("sealane-cluster", "agent.listenAddress=localhost", "/agent/listenAddress"),
    ("sealane-cluster", "agent.listenAddress=[fd00:]", "agent.listenAddress: \"[fd00:]\" is no IPv6 address"),
    ("sealane-cluster", "gateway.log=info\\,", "/gateway/log"),
    ("sealane-cluster", "gateway.listenAddress=1.2.3", "/gateway/listenAddress"),
    ("sealane-cluster", "cluster.gatewayAddresses={gw.example.org:65536}", "/cluster/gatewayAddresses/0"),
    ("sealane-cluster", "cluster.gatewayAddresses={GW.example.org:15443}", "/cluster/gatewayAddresses/0"),
    (
        "sealane-cluster",
        "cluster.gatewayAddresses={[::]:15443}",
        "\"[::]:15443\" is no address that others can dial",
    ),
    ("sealane-cluster", "cluster.gatewayAddresses={[1:2]:15443}", "\"[1:2]:15443\" is no IPv6 address"),
    ("sealane-cluster", "join.servers={a:99999}", "/join/servers/0"),
    ("sealane-cluster", "gateway.enabled=true", "gateway.enabled needs cluster.gatewayAddresses"),
];

fn refused_by_what_they_say(refused: &[(&str, &str, &str)]) -> Result<()> {
    for (chart, value, said) in refused {
        let Err(error) = render(chart, None, &[value]) else { bail!("{chart} takes {value}") };
        // What was given is in it anyway.
        let error = format!("{error:#}").replace(value, "");
        assert!(error.contains(said), "{chart} {value}: {error}");
    }
    Ok(())
}

/// What the charts take at the edges of what they refuse is what the program takes.
#[test]
fn values_that_are_taken_are_taken_by_the_program_too() -> Result<()> {
    if !ready("values_that_are_taken_are_taken_by_the_program_too") {
        return Ok(());
    }
    let taken = [
        ("sealane-federation", "servers.certificateTtl=2s"),
        ("sealane-federation", "servers.certificateTtl=10080m"),
        ("sealane-federation", "servers.listenAddress=[::]"),
        ("sealane-federation", "servers.log=warn\\,sealane_federation::rest=debug\\,raft=off"),
        (
            "sealane-federation",
            "servers.replicas=1,servers.addresses[0].grpc=[fd00::1]:65535,servers.addresses[0].status=a.b:1",
        ),
        ("sealane-cluster", "cluster.interestSelector=example.org/team=a\\, mesh\\,b="),
        ("sealane-cluster", "cluster.network=a.b_c-9"),
        ("sealane-cluster", "cluster.zone=eu-1A"),
        ("sealane-cluster", "agent.listenAddress=[1:2:3:4:5:6:7:8]"),
        ("sealane-cluster", "agent.log=INFO\\,sealane_agent[serve]=trace"),
        (
            "sealane-cluster",
            "gateway.enabled=true,cluster.gatewayAddresses={gw.example.org:1,[fd00::]:65535,192.0.2.1:60000}",
        ),
    ];
    for (chart, value) in taken {
        for object in objects(&render(chart, None, &[value]).with_context(|| value.to_owned())?)? {
            for container in containers(&object) {
                understood(container, &object).with_context(|| format!("{chart} {value}"))?;
            }
        }
    }
    Ok(())
}
