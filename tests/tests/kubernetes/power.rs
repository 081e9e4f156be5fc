//! A whole cluster of one flat network, without gateways, hangs or is lost: the others withdraw it. Its agent alone is
//! not it.

use rustix::process::Signal;
use sealane_tests::charts::NAMESPACE;
use sealane_tests::clusters::{Losing, Product, in_clusters};

#[test]
fn a_flat_cluster_that_hangs_or_loses_its_power_is_withdrawn_and_one_without_an_agent_is_not() {
    let name = "a_flat_cluster_that_hangs_or_loses_its_power_is_withdrawn_and_one_without_an_agent_is_not";
    in_clusters(name, async |place| {
        let losing = Losing::begin(place, &Product::of_this_build().await?).await?;
        let agents = async |replicas: &str| {
            let scale = ["scale", "statefulset/sealane-agent", replicas, "--namespace", NAMESPACE];
            losing.environment().kubectl("west", &scale).await
        };
        agents("--replicas=0").await?;
        losing.standing("suspect").await?;
        losing.stays_unchanged().await?;
        agents("--replicas=1").await?;
        losing.standing("live").await?;

        let hung = losing.withdrawn(Signal::STOP).await?;
        let back = losing.back().await?;
        let lost = losing.withdrawn(Signal::KILL).await?;
        println!(
            "withdrawn {hung:?} after it hung, back after {back:?}, withdrawn {lost:?} after it lost its power"
        );
        Ok(())
    });
}
