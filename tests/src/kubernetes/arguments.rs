//! The arguments of the programs of a control plane: values in, words out.

use std::net::IpAddr;
use std::path::Path;

/// Who signs ServiceAccount tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The port of every API server.
pub const PORT: u16 = 6443;
/// The port on which etcd is asked.
pub const ETCD_PORT: u16 = 2379;

/// What an API server is told.
#[derive(Debug, Clone)]
pub struct ApiServer<'a> {
    /// Whom its tokens name as their issuer.
    pub issuer: &'a str,
    /// Where it listens.
    pub bind: IpAddr,
    /// Under which address the Service `kubernetes` reaches it.
    pub advertise: IpAddr,
    /// Where its etcd is.
    pub etcd: IpAddr,
    /// The folder of the cluster's certificates.
    pub pki: &'a Path,
    /// The addresses of Services: one range, or one a family with a comma between them.
    pub services: &'a str,
    /// Further arguments, `--name=value`.
    pub more: &'a [String],
}

impl ApiServer<'_> {
    /// The words.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let ApiServer { issuer, bind, advertise, etcd, services, .. } = self;
        let pki = self.pki.display();
        let mut words = vec![
            format!("--etcd-servers=http://{etcd}:{ETCD_PORT}"),
            format!("--bind-address={bind}"),
            format!("--secure-port={PORT}"),
            format!("--advertise-address={advertise}"),
            format!("--service-cluster-ip-range={services}"),
            format!("--tls-cert-file={pki}/apiserver.pem"),
            format!("--tls-private-key-file={pki}/apiserver.key"),
            format!("--client-ca-file={pki}/ca.pem"),
            format!("--service-account-issuer={issuer}"),
            format!("--service-account-key-file={pki}/sa.pub"),
            format!("--service-account-signing-key-file={pki}/sa.key"),
            format!("--kubelet-client-certificate={pki}/admin.pem"),
            format!("--kubelet-client-key={pki}/admin.key"),
            format!("--kubelet-certificate-authority={pki}/ca.pem"),
            // Else exec and logs hang on looking the node's name up.
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--requestheader-client-ca-file={pki}/ca.pem"),
            // Without it the server refuses to start where this authority is also that of the clients.
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            format!("--proxy-client-cert-file={pki}/front-proxy.pem"),
            format!("--proxy-client-key-file={pki}/front-proxy.key"),
            // Webhooks that are named by a Service go to its pods.
            "--enable-aggregator-routing=true".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
        ];
        words.extend_from_slice(self.more);
        words
    }
}

/// Of an etcd of one member, whose disk nobody needs after a power cut.
#[must_use]
pub fn etcd(directory: &Path, address: IpAddr) -> Vec<String> {
    let (client, peer) = (format!("http://{address}:{ETCD_PORT}"), format!("http://{address}:2380"));
    vec![
        format!("--data-dir={}", directory.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

/// Of a controller manager that listens on `bind`.
#[must_use]
pub fn controllers(pki: &Path, kubeconfig: &Path, bind: IpAddr, more: &[String]) -> Vec<String> {
    let pki = pki.display();
    let mut words = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--bind-address={bind}"),
        "--leader-elect=false".to_owned(),
        format!("--service-account-private-key-file={pki}/sa.key"),
        format!("--root-ca-file={pki}/ca.pem"),
        format!("--cluster-signing-cert-file={pki}/ca.pem"),
        format!("--cluster-signing-key-file={pki}/ca.key"),
        "--use-service-account-credentials=true".to_owned(),
        // Of an endpoint's change nobody wants to wait for the next one.
        "--endpointslice-updates-batch-period=0s".to_owned(),
    ];
    words.extend_from_slice(more);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_servers_own_arguments_come_last_so_that_they_win() {
        let more = ["--max-requests-inflight=1".to_owned()];
        let address: IpAddr = "127.16.0.1".parse().unwrap();
        let server = ApiServer {
            issuer: ISSUER,
            bind: address,
            advertise: address,
            etcd: address,
            pki: Path::new("/p"),
            services: "10.111.0.0/16",
            more: &more,
        };
        let words = server.words();
        assert_eq!(words[0], "--etcd-servers=http://127.16.0.1:2379");
        assert_eq!(words.last().unwrap(), "--max-requests-inflight=1");
        assert!(words.contains(&"--client-ca-file=/p/ca.pem".to_owned()));
    }
}
