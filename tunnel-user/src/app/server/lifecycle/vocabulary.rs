//! What a server's life is told, and what it asks for.

/// What happens. None but those of successors and time says more when it comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::app::server) enum Event {
    /// The [next deadline](super::Lifecycle::next_deadline) may be over.
    TimePassed,
    /// It is known which nodes there are.
    NodesKnown,
    /// There is a certificate.
    Certified,
    /// All nodes that had a session with the predecessor have one here.
    AgentsCame,
    /// A process asks for the sockets.
    SuccessorCame,
    /// It has been told what it takes over.
    OfferTaken,
    /// It takes clients.
    SuccessorReady,
    /// It has gone, may not have the sockets, or does not speak our protocol.
    SuccessorFailed,
    /// The first signal.
    ToldToStop,
    /// The second.
    Aborted,
    /// A task has ended that nobody told to.
    TaskFailed,
    /// Nobody accepts clients any more, and none is left.
    ClientsGone,
    /// Nobody accepts agents any more, and no session is left.
    SessionsGone,
}

/// What to do. Each is done before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app::server) enum Action {
    /// Log it.
    Tell(Notice),
    /// Fail, with what keeps this server from taking over.
    GiveUp,
    /// Answer `culvert status` in the predecessor's place.
    AnswerStatus,
    /// Fail unless the predecessor still waits: both would write the kernel's tables.
    CheckPredecessor,
    /// Write the tables, open the gate, accept clients, follow addresses; be ready.
    TakeClients,
    /// Let successors come.
    AwaitSuccessor,
    /// Tell the predecessor that this server takes clients.
    DismissPredecessor,
    /// Let the ranges be used.
    UseRanges,
    /// The same, once the predecessor accepts no longer.
    UseRangesWhenAlone,
    /// Take no agents, and write no tables.
    LeaveCharge,
    /// Give the successor the sockets, and the names of the nodes to expect.
    OfferSockets,
    /// Ask each agent for another session, which arrives at the successor.
    AskAgentsToMove,
    /// Let the successor go that gave up; take agents and write tables again.
    GoOn,
    /// Let the successor go that gave up, and wait for another.
    LetSuccessorGo,
    /// Let no successor come any more, and let go of the one that is there.
    AwaitNoSuccessor,
    /// Say that this server stops.
    TellNotReady,
    /// Close the listening sockets, and leave the service addresses, for the successor has them all.
    LeaveSockets,
    /// Accept none of the clients that are queued: the successor does.
    LeaveQueue,
    /// Answer no more on the meta port.
    StopMeta,
    /// Redirect no more.
    CloseGate,
    /// Let other servers write what is pinned.
    ReleasePins,
    /// Accept no more clients, and end what speaks for this machine's server.
    TakeNoClients,
    /// Reset the clients that are left.
    ResetClients,
    /// End every session.
    EndSessions,
    /// End all tasks, and wait for them.
    EndEverything,
    /// Take the addresses and routes off this machine that servers put there.
    RemoveAddresses,
}

/// What the log is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app::server) enum Notice {
    StoppedBeforeAble,
    StoppedBeforeTakeover,
    AgentsMissing,
    ClientsOutlivedDrain,
    AgentsOutlivedSessions,
    AwaitsPodEnd,
    Stopped,
}
