//! Packets in, packets out.

use super::*;
use hickory_proto::op::{Edns, MessageType, OpCode, Query};
use hickory_proto::rr::DNSClass;
use proptest::prelude::*;

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0xbeef, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn edns(payload: u16) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_dnssec_ok(true);
    edns
}

fn exchange(zone: Option<&Zone>, packet: &[u8], transport: Transport) -> Option<Message> {
    respond(packet, zone, transport, 0).map(|reply| Message::from_vec(&reply.bytes).unwrap())
}

fn udp(zone: &Zone, message: &Message) -> Message {
    exchange(Some(zone), &message.to_vec().unwrap(), Transport::Udp).unwrap()
}

#[test]
fn an_answer_is_the_questions_with_its_letters() {
    let question = query("cArT.sHop.SVC.Clusterset.LOCAL.", RecordType::A);
    let answer = udp(&shop(), &question);
    let mut expected = question.clone();
    expected.metadata.message_type = MessageType::Response;
    expected.metadata.authoritative = true;
    assert_eq!(answer.metadata, expected.metadata);
    assert_eq!(answer.queries, expected.queries);
    let name = &question.queries[0].name;
    assert!(answer.queries[0].name.eq_case(name) && answer.answers[0].name.eq_case(name));
    assert_eq!((answer.answers.len(), answer.edns), (1, None));
}

#[test]
fn before_a_view_is_known_nothing_is_said_to_be_absent() {
    let ask = |name: &str| {
        let packet = query(name, RecordType::A).to_vec().unwrap();
        exchange(None, &packet, Transport::Udp).unwrap().metadata.response_code
    };
    assert_eq!(ask("cart.shop.svc.clusterset.local."), ResponseCode::ServFail);
    assert_eq!(ask("clusterset.local."), ResponseCode::ServFail);
    assert_eq!(ask("example.com."), ResponseCode::Refused);
}

#[test]
fn what_can_not_be_answered_is_told_why() {
    let zone = shop();
    let cart = "cart.shop.svc.clusterset.local.";
    let code = |message: &Message| {
        let answer = udp(&zone, message);
        assert_eq!((answer.metadata.id, answer.metadata.authoritative), (0xbeef, false));
        assert_eq!(answer.queries, message.queries);
        (answer.metadata.response_code, answer.answers.len() + answer.authorities.len())
    };
    assert_eq!(code(&query("example.com.", RecordType::A)), (ResponseCode::Refused, 0));
    assert_eq!(code(&query(".", RecordType::NS)), (ResponseCode::Refused, 0));
    let mut chaos = query(cart, RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), (ResponseCode::Refused, 0));
    let mut notify = query(cart, RecordType::SOA);
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&notify), (ResponseCode::NotImp, 0));
    let mut newer = query(cart, RecordType::A);
    let mut version = edns(4_096);
    version.set_version(1);
    newer.set_edns(version);
    // BADVERS and BADSIG are one number.
    assert_eq!(code(&newer), (ResponseCode::from(1, 0), 0));
}

#[test]
fn what_is_malformed_is_refused_or_dropped() {
    let zone = shop();
    let good = query("cart.shop.svc.clusterset.local.", RecordType::A).to_vec().unwrap();
    let code = |packet: &[u8]| {
        exchange(Some(&zone), packet, Transport::Udp).map(|m| (m.metadata.id, m.metadata.response_code))
    };
    let refused = Some((0xbeef, ResponseCode::FormErr));
    for length in 0..12 {
        assert_eq!(code(&good[..length]), None, "{length}");
    }
    for length in 12..good.len() {
        assert_eq!(code(&good[..length]), refused, "{length}");
    }
    let with = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    assert_eq!(code(&with(2, 0x80)), None, "an answer is not answered");
    assert_eq!(code(&with(5, 0)), refused, "no question");
    assert_eq!(code(&with(5, 2)), refused, "two questions");
    assert_eq!(code(&with(11, 1)), refused, "a record that is not there");
    assert_eq!(code(&with(12, 0xc0)), refused, "a question by a pointer to itself");
    let opt = [0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0];
    let twice = [with(11, 2), opt.to_vec(), opt.to_vec()].concat();
    assert_eq!(code(&twice), refused, "EDNS twice");
    assert_eq!(code(&[with(11, 1), opt.to_vec()].concat()), Some((0xbeef, ResponseCode::NoError)));
}

fn many(count: u8) -> Zone {
    let pets = (0..count).map(|n| direct("west", Some(&format!("pet-{n}")), &format!("10.2.0.{n}")));
    zone(vec![outbound("shop/pets", ServiceType::Headless, ports(), pets.collect(), &[])])
}

#[test]
fn what_is_too_large_for_a_datagram_says_so_and_comes_whole_by_tcp() {
    let zone = many(200);
    let pets = "pets.shop.svc.clusterset.local.";
    let sizes = |edns: Option<Edns>, kind: RecordType, transport: Transport| {
        let mut question = query(pets, kind);
        question.edns = edns;
        let reply = respond(&question.to_vec().unwrap(), Some(&zone), transport, 0).unwrap();
        let answer = Message::from_vec(&reply.bytes).unwrap();
        assert_eq!(answer.edns.is_some(), question.edns.is_some());
        if let Some(edns) = &answer.edns {
            assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (1_232, true));
        }
        let full = answer.answers.len() == 200;
        (reply.bytes.len(), answer.metadata.truncation, full, answer.answers.is_empty())
    };
    for kind in [RecordType::A, RecordType::SRV] {
        for (said, limit) in [(None, 512), (Some(0), 512), (Some(900), 900), (Some(65_535), 1_232)] {
            let (length, truncated, full, empty) = sizes(said.map(edns), kind, Transport::Udp);
            assert!(length <= limit && length + 100 > limit, "{length} of {limit}");
            assert_eq!((truncated, full, empty), (true, false, false));
        }
        let (length, truncated, full, _) = sizes(None, kind, Transport::Tcp);
        assert!(length > 1_232);
        assert_eq!((truncated, full), (false, true));
    }
}

#[test]
fn the_welcome_is_left_out_before_the_needed() {
    let zone = many(7);
    let question = query("pets.shop.svc.clusterset.local.", RecordType::SRV);
    let answer = udp(&zone, &question);
    assert_eq!((answer.answers.len(), answer.additionals.len(), answer.metadata.truncation), (7, 0, false));
    let whole = exchange(Some(&zone), &question.to_vec().unwrap(), Transport::Tcp).unwrap();
    assert_eq!((whole.answers.len(), whole.additionals.len()), (7, 7));
}

#[test]
fn more_than_a_message_holds_is_a_part_of_it() {
    let long = "h".repeat(57);
    let pets = (0..1_000u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        direct("west", Some(&format!("{long}-{n}")), &format!("10.2.{high}.{low}"))
    });
    let zone = zone(vec![outbound("shop/pets", ServiceType::Headless, ports(), pets.collect(), &[])]);
    let packet = query("pets.shop.svc.clusterset.local.", RecordType::SRV).to_vec().unwrap();
    let reply = respond(&packet, Some(&zone), Transport::Tcp, 0).unwrap();
    let answer = Message::from_vec(&reply.bytes).unwrap();
    assert!(reply.bytes.len() > 65_000 && answer.answers.len() > 400, "{}", answer.answers.len());
    assert!(!answer.metadata.truncation, "there is nothing larger to ask by");
}

/// Packets that are nearly right: a good one with some bytes changed, cut or added.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let names = prop_oneof![
        Just("cart.shop.svc.clusterset.local."),
        Just("_tcp._tcp.pets.shop.svc.clusterset.local."),
        Just("clusterset.local."),
        Just("example.com."),
    ];
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6);
    (names, any::<bool>(), changes, any::<proptest::sample::Index>(), any::<bool>()).prop_map(
        |(name, with_edns, changes, cut, cuts)| {
            let mut message = query(name, RecordType::SRV);
            if with_edns {
                message.set_edns(edns(1_400));
            }
            let mut packet = message.to_vec().unwrap();
            for (at, value) in changes {
                let at = at.index(packet.len());
                packet[at] = value;
            }
            if cuts {
                packet.truncate(cut.index(packet.len()));
            }
            packet
        },
    )
}

/// What holds of every packet: nothing panics, and what goes back is a message that fits, for this question.
fn holds(zone: Option<&Zone>, packet: &[u8]) -> Result<(), TestCaseError> {
    for (transport, limit) in [(Transport::Udp, 1_232), (Transport::Tcp, 65_535)] {
        let Some(reply) = respond(packet, zone, transport, 7) else {
            prop_assert!(packet.len() < 12 || packet[2] & 0x80 != 0);
            continue;
        };
        prop_assert!(reply.bytes.len() <= limit);
        prop_assert_eq!(&reply.bytes[..2], &packet[..2], "the number");
        prop_assert!(reply.bytes[2] & 0x80 != 0, "an answer");
        let answer = Message::from_vec(&reply.bytes);
        prop_assert!(answer.is_ok(), "{:?}", answer);
        let asked = answer.unwrap().queries;
        if reply.code == ResponseCode::NoError || reply.code == ResponseCode::NXDomain {
            prop_assert_eq!(asked.len(), 1);
            prop_assert!(zone.is_some());
            let length: usize = asked[0].name.iter().map(|label| label.len() + 1).sum();
            prop_assert_eq!(
                &reply.bytes[12..12 + length],
                &packet[12..12 + length],
                "the question's letters"
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_packet_does_harm(packet in proptest::collection::vec(any::<u8>(), 0..600)) {
        holds(Some(&shop()), &packet)?;
        holds(None, &packet)?;
    }

    #[test]
    fn no_packet_that_is_nearly_right_does_harm(packet in nearly()) {
        holds(Some(&shop()), &packet)?;
        holds(None, &packet)?;
    }
}
