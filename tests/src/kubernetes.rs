//! What every Kubernetes control plane of the tests has in common, on loopback or in a node's namespaces: its
//! certificates, its programs' arguments, and how to ask it.

pub mod arguments;
pub mod ask;
pub mod kubeconfig;
pub mod pki;
