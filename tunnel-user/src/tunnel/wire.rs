//! What travels on the wire: konnectivity's packets on the control stream, and the request that
//! opens the stream of one connection.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use rand::RngExt as _;

use crate::model::{Target, printable};

#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/agent.proto"
)]
mod generated {
    tonic::include_proto!("_");
}

pub(crate) use generated::{
    CloseDial, DialRequest, DialResponse, Drain, Packet, PacketType, ServerCount,
    agent_service_client, agent_service_server, packet::Payload,
};

/// The gRPC path of the control stream.
pub(crate) const CONNECT_PATH: &str = "/AgentService/Connect";
/// The path of the request whose stream carries one connection, both ways, without any framing
/// of its own.
pub(crate) const CARRY_PATH: &str = "/culvert.v1.Tunnel/Carry";
/// Names the dial that a carrying stream answers.
pub(crate) const DIAL_HEADER: HeaderName = HeaderName::from_static("culvert-dial");

/// The largest message of the control stream, either way. Connections have streams of their own, so
/// the longest is an error.
pub(crate) const LARGEST_MESSAGE: usize = 64 * 1024;

/// Names one dial within its session; chosen by the server, never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DialId(i64);

impl DialId {
    pub(crate) fn random() -> Self {
        Self(rand::rng().random_range(1..=i64::MAX))
    }

    pub(crate) fn to_header(self) -> HeaderValue {
        HeaderValue::from(self.0)
    }

    pub(crate) fn from_header(value: &HeaderValue) -> Option<Self> {
        value.to_str().ok()?.parse().ok().map(Self)
    }
}

/// What a packet asks for, once it is known to be well-formed.
#[derive(Debug)]
pub(crate) enum Control {
    /// Server to agent: dial this, and hand it what its client has said already.
    Dial {
        id: DialId,
        address: String,
        first: Bytes,
    },
    /// Agent to server: the dial failed, and why.
    DialFailed { id: DialId, error: String },
    /// Either way: forget the dial.
    CloseDial { id: DialId },
    /// The sender is about to leave: open no new connections through it.
    Drain,
    /// Server to agent: so many servers there are by now, and perhaps others than before.
    ServerCount(u32),
    /// Nothing that a native session uses; konnectivity's peers ignore what they do not know, and
    /// so do we.
    Other,
}

impl From<Packet> for Control {
    fn from(packet: Packet) -> Self {
        match packet.payload {
            Some(Payload::DialRequest(dial)) => Self::Dial {
                id: DialId(dial.random),
                // Longer than any target, and then it is none.
                address: printable(&dial.address),
                first: dial.first_bytes,
            },
            Some(Payload::DialResponse(answer)) => Self::DialFailed {
                id: DialId(answer.random),
                error: printable(&answer.error),
            },
            Some(Payload::CloseDial(dial)) => Self::CloseDial {
                id: DialId(dial.random),
            },
            Some(Payload::Drain(_)) => Self::Drain,
            Some(Payload::ServerCount(servers)) => Self::ServerCount(servers.count),
            Some(Payload::Data(_) | Payload::CloseRequest(_) | Payload::CloseResponse(_))
            | None => Self::Other,
        }
    }
}

pub(crate) fn dial(id: DialId, target: &Target, first_bytes: Bytes) -> Packet {
    let request = DialRequest {
        protocol: "tcp".into(),
        address: target.to_string(),
        random: id.0,
        first_bytes,
    };
    packet(PacketType::DialReq, Payload::DialRequest(request))
}

/// Which dial the packet asks for, if it does.
pub(crate) fn dial_of(packet: &Packet) -> Option<DialId> {
    match &packet.payload {
        Some(Payload::DialRequest(dial)) => Some(DialId(dial.random)),
        _ => None,
    }
}

pub(crate) fn dial_failed(id: DialId, error: String) -> Packet {
    let response = DialResponse {
        error,
        connect_id: 0,
        random: id.0,
    };
    packet(PacketType::DialRsp, Payload::DialResponse(response))
}

pub(crate) fn close_dial(id: DialId) -> Packet {
    packet(
        PacketType::DialCls,
        Payload::CloseDial(CloseDial { random: id.0 }),
    )
}

pub(crate) fn drain() -> Packet {
    packet(PacketType::Drain, Payload::Drain(Drain {}))
}

pub(crate) fn server_count(count: u32) -> Packet {
    packet(
        PacketType::ServerCount,
        Payload::ServerCount(ServerCount { count }),
    )
}

fn packet(kind: PacketType, payload: Payload) -> Packet {
    Packet {
        r#type: kind.into(),
        payload: Some(payload),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::model::LONGEST_PRINTED;

    #[test]
    fn an_empty_packet_is_not_a_dial() {
        // DIAL_REQ is type 0, so a packet without a payload decodes as one.
        let packet = Packet::decode(&[][..]).unwrap();
        assert_eq!(packet.r#type, i32::from(PacketType::DialReq));
        assert!(matches!(Control::from(packet), Control::Other));
    }

    #[test]
    fn a_dial_reads_as_konnectivity_writes_it() {
        let id = DialId(7);
        let target = "10.0.0.1:10250".parse().unwrap();
        let encoded = dial(id, &target, Bytes::new()).encode_to_vec();
        let by_hand = [
            &[0x12, 0x17, 0x0a, 3][..],
            b"tcp",
            &[0x12, 14],
            b"10.0.0.1:10250",
            &[0x18, 7],
        ]
        .concat();
        assert_eq!(encoded, by_hand);
    }

    #[test]
    fn the_number_of_servers_travels_where_konnectivity_has_nothing() {
        let encoded = server_count(3);
        assert_eq!(encoded.r#type, 1000);
        let decoded = Packet::decode(&*encoded.encode_to_vec()).unwrap();
        assert!(matches!(Control::from(decoded), Control::ServerCount(3)));
    }

    #[test]
    fn an_error_of_the_other_side_stays_one_line() {
        let forged = dial_failed(
            DialId(1),
            format!("refused\n2026-01-01 WARN {}", "x".repeat(999)),
        );
        let Control::DialFailed { error, .. } = forged.into() else {
            panic!("not a failed dial")
        };
        assert!(
            !error.contains('\n') && error.chars().count() == LONGEST_PRINTED,
            "{error:?}"
        );
    }

    #[test]
    fn dial_ids_survive_the_header() {
        let id = DialId::random();
        assert_eq!(DialId::from_header(&id.to_header()), Some(id));
        assert_eq!(DialId::from_header(&HeaderValue::from_static("x")), None);
    }
}
