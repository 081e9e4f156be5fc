//! A packet in, a packet out. Pure.
//!
//! Requests are read here as far as they are needed: the header, one question, and EDNS. What else may be in them is
//! skipped by its length, so that nothing a stranger puts there is worked on.

use super::answer::{self, Answer};
use super::zone::Zone;
use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};

/// The largest request that is read.
pub(crate) const MAX_REQUEST: usize = 4_096;
/// The largest answer by UDP, and what is told of requests: what passes everywhere without fragments.
const MAX_UDP: u16 = 1_232;
/// The largest answer by UDP to who does not say what it takes.
const PLAIN_UDP: u16 = 512;
/// What EDNS without options takes in a message.
const OPT: u16 = 11;
/// The type of the EDNS record.
const OPT_TYPE: u16 = 41;

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// In a stream.
    Tcp,
}

/// What goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The message.
    pub bytes: Vec<u8>,
    /// The type that was asked for, where the question could be read.
    pub kind: Option<RecordType>,
    /// The result.
    pub code: ResponseCode,
}

/// A request, as far as it could be read.
struct Request {
    header: Header,
    question: Option<Query>,
    edns: Option<Asked>,
    /// Whether all of it could be read.
    whole: bool,
}

/// The EDNS record of a request.
#[derive(Clone, Copy)]
struct Asked {
    payload: u16,
    version: u8,
    dnssec_ok: bool,
}

/// Answers a packet; `None` when there is nobody to answer: it is too short to have a number, or is an answer itself.
/// `zone` is `None` while it is not known; `turn` is any number, for the order of records.
#[must_use]
pub fn respond(packet: &[u8], zone: Option<&Zone>, transport: Transport, turn: u32) -> Option<Reply> {
    let request = Request::read(packet)?;
    if request.header.metadata.message_type == MessageType::Response {
        return None;
    }
    let answer = request.answer(zone, turn);
    let limit = match (transport, request.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(asked)) => asked.payload.clamp(PLAIN_UDP, MAX_UDP),
        (Transport::Udp, None) => PLAIN_UDP,
    };
    let (code, kind) = (answer.code, request.question.as_ref().map(Query::query_type));
    let bytes = write(request.reply(answer), limit, transport)?;
    Some(Reply { bytes, kind, code })
}

impl Request {
    fn read(packet: &[u8]) -> Option<Self> {
        let mut decoder = BinDecoder::new(packet);
        let header = Header::read(&mut decoder).ok()?;
        let counts = header.counts;
        let question = (counts.queries == 1).then(|| Query::read(&mut decoder).ok()).flatten();
        let records =
            u32::from(counts.answers) + u32::from(counts.authorities) + u32::from(counts.additionals);
        let rest = packet.get(decoder.index()..).unwrap_or_default();
        let edns = question.as_ref().and_then(|_| edns(rest, records));
        let whole = edns.is_some();
        Some(Request { header, question, edns: edns.flatten(), whole })
    }

    fn answer(&self, zone: Option<&Zone>, turn: u32) -> Answer {
        if self.header.metadata.op_code != OpCode::Query {
            return Answer::bare(ResponseCode::NotImp);
        }
        let Some(question) = self.question.as_ref().filter(|_| self.whole) else {
            return Answer::bare(ResponseCode::FormErr);
        };
        if self.edns.is_some_and(|asked| asked.version > 0) {
            return Answer::bare(ResponseCode::BADVERS);
        }
        if question.query_class() != DNSClass::IN || !answer::is_ours(question.name()) {
            return Answer::bare(ResponseCode::Refused);
        }
        match zone {
            Some(zone) => zone.answer(question.name(), question.query_type(), turn),
            None => Answer::bare(ResponseCode::ServFail),
        }
    }

    fn reply(&self, answer: Answer) -> Message {
        let asked = &self.header.metadata;
        let mut message = Message::response(asked.id, asked.op_code);
        message.metadata.recursion_desired = asked.recursion_desired;
        message.metadata.checking_disabled = asked.checking_disabled;
        message.metadata.authoritative = answer.authoritative;
        message.metadata.response_code = answer.code;
        message.queries.extend(self.question.clone());
        message.answers = answer.answers;
        message.authorities = answer.authorities;
        message.additionals = answer.additionals;
        message.edns = self.edns.map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP).set_dnssec_ok(asked.dnssec_ok);
            edns
        });
        message
    }
}

/// The EDNS record among so many; `None` when the records are not well formed, or there are two of it.
fn edns(mut rest: &[u8], records: u32) -> Option<Option<Asked>> {
    let mut found = None;
    for _ in 0..records {
        let root = rest.first() == Some(&0);
        rest = rest.get(name_length(rest)?..)?;
        let (head, tail) = rest.split_at_checked(10)?;
        let number = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        if number(0) == OPT_TYPE {
            let asked = Asked { payload: number(2), version: head[5], dnssec_ok: head[6] & 0x80 != 0 };
            if !root || found.replace(asked).is_some() {
                return None;
            }
        }
        rest = tail.get(usize::from(number(8))..)?;
    }
    Some(found)
}

/// How many bytes a name takes here; where a pointer leads is not looked at.
fn name_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// The message within a limit. What can not all be in is left out from the end, the welcome before the needed; by UDP
/// that is said, so that the client comes again by TCP. By TCP there is nothing larger to come again for.
fn write(mut message: Message, limit: u16, transport: Transport) -> Option<Vec<u8>> {
    let (bytes, whole) = attempt(&message, limit)?;
    if whole {
        return Some(bytes);
    }
    message.additionals.clear();
    let (bytes, whole) = attempt(&message, limit)?;
    if whole {
        return Some(bytes);
    }
    let edns = message.edns.take();
    let room = limit - if edns.is_some() { OPT } else { 0 };
    let (bytes, _) = attempt(&message, room)?;
    message.answers.truncate(usize::from(u16::from_be_bytes([bytes[6], bytes[7]])));
    message.authorities.truncate(usize::from(u16::from_be_bytes([bytes[8], bytes[9]])));
    message.edns = edns;
    message.metadata.truncation = transport == Transport::Udp;
    attempt(&message, limit).map(|(bytes, _)| bytes)
}

/// The message as far as it fits, and whether it does.
fn attempt(message: &Message, limit: u16) -> Option<(Vec<u8>, bool)> {
    let mut bytes = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    if let Err(error) = message.emit(&mut encoder) {
        tracing::debug!(%error, "an answer can not be written");
        return None;
    }
    let whole = bytes.get(2)? & 0x02 == 0;
    Some((bytes, whole))
}
