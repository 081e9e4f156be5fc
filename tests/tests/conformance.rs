//! Our own tests for every row of the conformance suite of the Multi-Cluster Services API (R: required, O: optional),
//! and for what it leaves untested (X), in real clusters with Sealane installed. See docs/conformance.md.
#![allow(clippy::unwrap_used)] // tests

#[path = "conformance/beyond.rs"]
mod beyond;
#[path = "conformance/cluster.rs"]
mod cluster;
#[path = "conformance/families.rs"]
mod families;
#[path = "conformance/fields.rs"]
mod fields;
#[path = "conformance/lifecycle.rs"]
mod lifecycle;
#[path = "conformance/names.rs"]
mod names;
#[path = "conformance/objects.rs"]
mod objects;
#[path = "conformance/slices.rs"]
mod slices;
#[path = "conformance/stage.rs"]
mod stage;
#[path = "conformance/traffic.rs"]
mod traffic;
#[path = "conformance/wait.rs"]
mod wait;
#[path = "conformance/world.rs"]
mod world;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use sealane_tests::{skip, tools};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use world::{Act, World};

/// How many specs run at once where nobody says: they wait most of the time.
const AT_ONCE: usize = 4;

macro_rules! specs {
    ($($area:ident::$name:ident,)*) => {
        [$((stringify!($name), (|stage| Box::pin($area::$name(stage))) as Act)),*]
    };
}

/// All of them; those that take long first.
const SPECS: [(&str, Act); 38] = specs![
    lifecycle::r14_unexported_is_inaccessible,
    traffic::o11_only_the_exporter_answers,
    traffic::o12_a_port_of_the_same_name_goes_to_its_cluster,
    traffic::o13_each_port_goes_to_its_cluster,
    lifecycle::r1_import_exists_while_a_cluster_exports,
    lifecycle::r2_cluster_ip_is_imported_everywhere,
    fields::r3_session_affinity_matches,
    fields::r4_internal_traffic_policy_matches,
    fields::r5_traffic_distribution_matches,
    fields::r6_one_address_for_each_family,
    fields::r7_ports_match,
    fields::r8_ports_are_united_and_the_difference_told,
    fields::r9_of_conflicting_ports_the_oldest_win,
    lifecycle::r10_headless_is_imported_everywhere,
    lifecycle::r11_headless_has_no_address,
    lifecycle::r12_external_name_is_not_valid,
    lifecycle::r13_conflicting_headlessness_is_told,
    fields::o1_only_exported_labels_are_imported,
    fields::o2_of_conflicting_labels_the_oldest_win,
    slices::o3_slices_are_labelled,
    names::o4_name_is_the_clusterset_address,
    names::o5_name_has_one_srv_record,
    names::o6_local_name_is_the_local_address,
    names::o7_headless_name_is_all_ready_pods,
    names::o8_each_stateful_pod_has_a_name,
    names::o9_headless_has_an_srv_record_for_each_endpoint,
    traffic::o10_exported_is_reached,
    beyond::x1_kubectl_waits_for_ready,
    beyond::x2_an_export_without_a_service,
    beyond::x3_a_service_of_another_type,
    beyond::x4_a_conflict_changes_no_traffic,
    beyond::x5_client_affinity_takes_effect,
    beyond::x6_internal_traffic_policy_takes_effect,
    beyond::x7_udp_is_answered,
    beyond::x8_the_own_pods_come_first,
    beyond::x9_an_address_stays,
    families::x10_a_family_of_some_is_a_conflict,
    families::x11_a_family_that_is_not_supported,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if let Some(reason) = missing()
        && !arguments.list
    {
        skip("conformance", &reason);
        return ExitCode::SUCCESS;
    }
    arguments.test_threads.get_or_insert(AT_ONCE);
    let run = Arc::new(Run::default());
    let trials = SPECS.iter().map(|(name, act)| {
        let run = Arc::clone(&run);
        Trial::test(*name, move || run.spec(name, *act))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if !arguments.list {
        run.report();
    }
    match run.end() {
        Ok(()) => conclusion.exit_code(),
        Err(error) => {
            eprintln!("the clusters were not taken down: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Why no clusters can run here.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("nodes are made of namespaces, which needs root".to_owned());
    }
    if std::env::var_os(world::RUNNING).is_some() {
        return None;
    }
    tools::missing(&[&tools::API_SERVER, &tools::KUBELET, &tools::COREDNS])
}

/// One run of some specs.
#[derive(Debug, Default)]
struct Run {
    world: OnceLock<Result<Mutex<Option<Arc<World>>>, String>>,
    done: Mutex<Vec<(&'static str, Duration, bool)>>,
}

impl Run {
    /// Runs a spec in clusters that the first one brings up.
    fn spec(&self, name: &'static str, act: Act) -> Result<(), Failed> {
        let world = self.world()?;
        let start = Instant::now();
        let result = world.run(name, act);
        let done = (name, start.elapsed(), result.is_ok());
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        result.map_err(|error| Failed::from(format!("{error:?}")))
    }

    fn world(&self) -> Result<Arc<World>, Failed> {
        let entered = self.world.get_or_init(|| {
            let start = Instant::now();
            let world = World::enter().map_err(|error| format!("{error:#}"))?;
            eprintln!("clusters: {:.1} s", start.elapsed().as_secs_f64());
            Ok(Mutex::new(Some(Arc::new(world))))
        });
        let world = entered.as_ref().map_err(|error| Failed::from(error.clone()))?;
        let world = world.lock().unwrap_or_else(PoisonError::into_inner);
        world.clone().ok_or_else(|| Failed::from("the clusters were taken down"))
    }

    /// Prints how long each took, and how much conforms.
    fn report(&self) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.sort();
        for (name, took, passed) in done.iter() {
            let verdict = if *passed { "passed" } else { "FAILED" };
            println!("{verdict} {:6.1} s  {name}", took.as_secs_f64());
        }
        for (letter, what) in [('r', "required"), ('o', "optional"), ('x', "others")] {
            let rows = || done.iter().filter(|(name, ..)| name.starts_with(letter));
            println!(
                "{what}: {} of {} passed",
                rows().filter(|(.., passed)| *passed).count(),
                rows().count()
            );
        }
    }

    /// Takes down what was brought up.
    fn end(&self) -> Result<()> {
        let Some(Ok(world)) = self.world.get() else { return Ok(()) };
        let world = world.lock().unwrap_or_else(PoisonError::into_inner).take();
        match world.and_then(Arc::into_inner) {
            Some(world) => world.leave(),
            None => Ok(()),
        }
    }
}
