//! What DNS counts. Labels are from fixed lists: a stranger can not make new ones.

use super::message::Transport;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What the DNS server counts.
#[derive(Debug, Default)]
pub struct DnsMetrics {
    queries: Family<Query, Counter>,
    /// Packets that were not answered: too short, or answers themselves.
    pub dropped: Counter,
    /// Connections that were closed at once, because there were too many.
    pub refused: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Query {
    transport: &'static str,
    r#type: &'static str,
    rcode: &'static str,
}

impl DnsMetrics {
    /// Takes part in what is shown.
    pub fn register(&self, registry: &mut Registry) {
        let dns = registry.sub_registry_with_prefix("dns");
        dns.register("queries", "DNS queries answered", self.queries.clone());
        dns.register("dropped", "DNS packets that were not answered", self.dropped.clone());
        dns.register("connections_refused", "DNS connections closed at once", self.refused.clone());
    }

    /// Counts an answer.
    pub fn count(&self, transport: Transport, kind: Option<RecordType>, code: ResponseCode) {
        let transport = match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        let query = Query { transport, r#type: kind.map_or("none", type_name), rcode: code_name(code) };
        self.queries.get_or_create(&query).inc();
    }
}

fn type_name(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::ANY => "ANY",
        RecordType::NS => "NS",
        RecordType::PTR => "PTR",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        RecordType::TXT => "TXT",
        _ => "other",
    }
}

fn code_name(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}
