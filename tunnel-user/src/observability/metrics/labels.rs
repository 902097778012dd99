//! The values that labels take.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

macro_rules! label_values {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The value as it stands in the metrics.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    };
}

label_values! {
    /// A way in.
    Frontend {
        /// Connects that the kernel redirected.
        Transparent = "transparent",
        /// HTTP requests.
        Http = "http",
        /// HTTPS requests.
        Https = "https",
        /// HTTP CONNECT.
        Connect = "connect",
        /// konnectivity's `ProxyService`.
        Grpc = "grpc",
    }
}

label_values! {
    /// How a connection ended.
    Outcome {
        /// Both directions ended in order.
        Completed = "completed",
        /// One end reset it.
        Reset = "reset",
        /// Its session ended under it.
        SessionLost = "session_lost",
        /// The other end sent more than its window allows, and memory was used up.
        Overflow = "overflow",
        /// One end had closed it, and the other neither closed nor said anything for an hour.
        Forgotten = "forgotten",
        /// It was still open when the time for draining was over.
        Drained = "drained",
        /// The agent could not dial the target, or was not asked to: see the dial failures.
        DialFailed = "dial_failed",
        /// Whoever carried it let it go without saying how it ended.
        Abandoned = "abandoned",
    }
}

label_values! {
    /// Why a dial failed.
    DialFailure {
        /// No node has the address that the client asked for.
        UnknownNode = "unknown_node",
        /// The node has no session.
        NoSession = "no_session",
        /// The session ended while the dial was pending.
        SessionLost = "session_lost",
        /// The session carries as many connections as it may.
        SessionFull = "session_full",
        /// The client's address has as many connections as one may have.
        ClientFull = "client_full",
        /// The agent's policy does not allow the target.
        Denied = "denied",
        /// The target refused.
        Refused = "refused",
        /// The target cannot be reached from the edge.
        Unreachable = "unreachable",
        /// The target's name does not resolve on the edge.
        Unresolved = "unresolved",
        /// It took too long.
        TimedOut = "timed_out",
        /// The other end broke the protocol.
        Protocol = "protocol",
        /// The agent ran out of something: descriptors, memory, ports; or the server out of memory.
        Exhausted = "exhausted",
        /// Anything else: the log has the words.
        Other = "other",
    }
}

label_values! {
    /// Why a client of an HTTPS port was not carried.
    HttpsRefusal {
        /// It names no server.
        NoServerName = "no_server_name",
        /// No node has the name that it says.
        UnknownName = "unknown_name",
        /// What it says first is no TLS, or no hello.
        NotTls = "not_tls",
        /// Its hello cannot be read.
        Malformed = "malformed",
        /// Its hello is too long, or in too many pieces.
        TooLong = "too_long",
        /// Its hello did not come in time.
        TooSlow = "too_slow",
        /// Somebody else needed its place before its hello had come.
        Evicted = "evicted",
        /// It left before its hello had come.
        Left = "left",
        /// It may not use a port that leads to a node's loopback.
        NotAllowed = "not_allowed",
        /// Its node could not be dialled: see the dial failures.
        DialFailed = "dial_failed",
        /// Its TLS ends here, and it could not agree on one, or showed a certificate of another CA.
        HandshakeFailed = "handshake_failed",
        /// As many are here as may be whose TLS ends here.
        TooMany = "too_many",
    }
}

label_values! {
    /// The class of a status code.
    CodeClass {
        /// The protocol changed.
        Informational = "1xx",
        /// It was done.
        Success = "2xx",
        /// It is elsewhere.
        Redirection = "3xx",
        /// The client is to blame.
        ClientError = "4xx",
        /// The server is, or the target.
        ServerError = "5xx",
    }
}

label_values! {
    /// Who answered a request, or why its target did not.
    HttpReason {
        /// The target did, whatever it said.
        Answered = "answered",
        /// The client may not use the port.
        SourceNotAllowed = "source_not_allowed",
        /// It cannot be read, or says nothing clear of where it goes.
        Malformed = "malformed",
        /// Its head is too large.
        TooLarge = "too_large",
        /// Its head did not come in time.
        TooSlow = "too_slow",
        /// Another client needed its place before its head had come.
        Evicted = "evicted",
        /// The client has as many requests under way as one may.
        TooMany = "too_many",
        /// No node has that name or address.
        UnknownNode = "unknown_node",
        /// The port is not open to HTTP, or not to this client.
        PortNotAllowed = "port_not_allowed",
        /// The node has no session.
        NoSession = "no_session",
        /// The dial took too long.
        TimedOut = "timed_out",
        /// The dial failed: see the dial failures.
        DialFailed = "dial_failed",
        /// The target took the connection, and gave no answer that is HTTP.
        TargetFailed = "target_failed",
        /// It shows no credential, or one that proves nobody.
        Unauthenticated = "unauthenticated",
        /// Its user may not do that to the node.
        NotPermitted = "not_permitted",
        /// The API server did not say who its user is, what that may, or where the pod is.
        NotReviewed = "not_reviewed",
        /// The target's certificate is not one of the node.
        NotVerified = "not_verified",
        /// This server has no certificate for kubelets yet.
        NoCertificate = "no_certificate",
    }
}

label_values! {
    /// The method of a request.
    Verb {
        /// GET.
        Get = "GET",
        /// HEAD.
        Head = "HEAD",
        /// POST.
        Post = "POST",
        /// PUT.
        Put = "PUT",
        /// PATCH.
        Patch = "PATCH",
        /// DELETE.
        Delete = "DELETE",
        /// OPTIONS.
        Options = "OPTIONS",
        /// Any other.
        Other = "other",
    }
}

label_values! {
    /// What a request's path begins with: a kubelet's endpoints, and what exporters serve.
    PathClass {
        /// Metrics, of whatever.
        Metrics = "/metrics",
        /// The kubelet's numbers.
        Stats = "/stats",
        /// Logs of a container.
        ContainerLogs = "/containerLogs",
        /// A command in a container.
        Exec = "/exec",
        /// A container's own process.
        Attach = "/attach",
        /// A port of a pod.
        PortForward = "/portForward",
        /// A command in a container, the old way.
        Run = "/run",
        /// The pods of a node.
        Pods = "/pods",
        /// Logs of the node.
        Logs = "/logs",
        /// Health.
        Health = "/healthz",
        /// Profiles.
        Debug = "/debug",
        /// Any other.
        Other = "other",
    }
}

label_values! {
    /// Which way bytes went.
    Direction {
        /// From the client to the target.
        ToTarget = "to_target",
        /// From the target to the client.
        ToClient = "to_client",
    }
}

label_values! {
    /// Which of two servers counts a relayed connection.
    RelaySide {
        /// The one that has the client.
        Asked = "asked",
        /// The one that has the session.
        Answered = "answered",
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByRelaySide {
    pub(super) side: RelaySide,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByFrontend {
    pub(super) frontend: Frontend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByFrontendAndOutcome {
    pub(super) frontend: Frontend,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByOutcome {
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByCause {
    pub(super) cause: DialFailure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByReason {
    pub(super) reason: HttpsRefusal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByCodeAndReason {
    pub(super) code: CodeClass,
    pub(super) reason: HttpReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByDirection {
    pub(super) direction: Direction,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByCertificate {
    pub(super) certificate: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByVerbAndPath {
    pub(super) verb: Verb,
    pub(super) path: PathClass,
}
