//! A whole federation on this machine: real processes of the real binary, on loopback addresses of its own.
//!
//! Law: everything is done by commands that an operator could type, and everything is read from what the processes
//! themselves say. No process and no file outlives the one who started it: children die with their parent
//! (`PR_SET_PDEATHSIG`), the directory is removed with the [`Lab`], and by its [`guard`] when the run is killed. Not here: what is claimed or proved with it (`demo`, and the end-to-end tests).

pub mod block;
pub mod caller;
pub mod directory;
pub mod federation;
pub mod guard;
pub mod http;
pub mod inspect;
pub mod lab;
pub mod manifests;
pub mod pod;
pub mod process;
pub mod relay;
pub mod site;
pub mod traffic;
pub mod wait;

pub use block::Block;
pub use federation::Federation;
pub use lab::Lab;
pub use pod::{Pod, PodSpec};
pub use process::{Launcher, Process};
pub use relay::Relay;
pub use site::{Site, SiteSpec};
pub use traffic::{Tally, Traffic};
