//! Dials that the server has asked for and the agent has not answered yet.
//!
//! A pending dial always ends: with the stream that the agent opens, with its error, with the
//! session, or with the time allowed. Whoever waits for it holds a [`PendingDial`]; dropping that
//! (the client left, or time ran out) forgets the dial.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    Client, answer::dial_failure, places::NoPlace, transport::http2::OfferedStream, wire::DialId,
};
use crate::{model::NodeName, observability::metrics::DialFailure};

/// Why a client's connection could not be carried to its target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The address belongs to nobody, or not any more.
    #[error("no node has the address {0} any more")]
    UnknownAddress(IpAddr),
    /// There is no such node, or it has no address.
    #[error("there is no node {0} with an address")]
    UnknownNode(NodeName),
    /// No agent of that node is connected.
    #[error("no agent of node {0} is connected")]
    NoSession(NodeName),
    /// The session carries as many connections as it may.
    #[error(
        "the session of node {node} carries {limit} connections, its limit for this client: \
             --max-connections-per-session can raise it"
    )]
    SessionFull {
        /// The node.
        node: NodeName,
        /// The limit, a setting, less what is kept for the server's machine.
        limit: u32,
    },
    /// The client has as many connections through the session as one client may.
    #[error(
        "{client} has {limit} connections to node {node}, as many as one client may: half of \
             --max-connections-per-session"
    )]
    ClientFull {
        /// The node.
        node: NodeName,
        /// Whose connections they are.
        client: Client,
        /// How many one may have.
        limit: u32,
    },
    /// This server carries as many connections as its memory allows.
    #[error(
        "this server carries {limit} connections, all that its memory allows this client: \
             --memory-limit, or the container's limit, can raise it"
    )]
    OutOfMemory {
        /// How many that is.
        limit: u32,
    },
    /// The client has as many connections as one client may.
    #[error(
        "{client} has {limit} connections, as many as one client may: half of what the memory \
             of this server allows"
    )]
    ClientOutOfMemory {
        /// Whose connections they are.
        client: Client,
        /// How many one may have.
        limit: u32,
    },
    /// The session ended while the dial was pending.
    #[error("the session of node {0} ended during the dial")]
    SessionEnded(NodeName),
    /// The agent answered that it could not, or may not, dial the target.
    #[error("the agent answered: {0}")]
    Refused(String),
    /// Nobody answered in time.
    #[error("no answer from the agent within {0:?}")]
    TimedOut(Duration),
    /// Another server has the node's session, and could not connect.
    #[error("server {server} answered: {message}")]
    Relayed {
        /// Its address.
        server: Box<str>,
        /// Why, as metrics count it.
        failure: DialFailure,
        /// Why, in its words.
        message: Box<str>,
    },
    /// The connection to the server that has the session ended during the dial.
    #[error("the connection to server {0} ended during the dial")]
    LinkEnded(Box<str>),
}

impl DialError {
    /// There is no share of memory for the client's connection.
    pub(crate) fn without_memory(refused: NoPlace, client: Client) -> Self {
        match refused {
            NoPlace::Full(limit) => Self::OutOfMemory { limit },
            NoPlace::ClientFull(limit) => Self::ClientOutOfMemory { client, limit },
        }
    }

    /// As metrics count it.
    pub(crate) fn failure(&self) -> DialFailure {
        match self {
            Self::UnknownAddress(_) | Self::UnknownNode(_) => DialFailure::UnknownNode,
            Self::NoSession(_) => DialFailure::NoSession,
            Self::SessionFull { .. } => DialFailure::SessionFull,
            Self::ClientFull { .. } | Self::ClientOutOfMemory { .. } => DialFailure::ClientFull,
            Self::OutOfMemory { .. } => DialFailure::Exhausted,
            Self::SessionEnded(_) | Self::LinkEnded(_) => DialFailure::SessionLost,
            Self::TimedOut(_) => DialFailure::TimedOut,
            Self::Refused(answer) => dial_failure(answer),
            Self::Relayed { failure, .. } => *failure,
        }
    }
}

/// The agent's answer to one dial.
pub(crate) type DialAnswer = Result<OfferedStream, String>;

/// The dials of one session that wait for an answer.
#[derive(Clone, Default)]
pub(crate) struct PendingDials {
    waiting: Arc<Mutex<HashMap<DialId, oneshot::Sender<DialAnswer>>>>,
}

/// One dial's wait for its answer.
pub(crate) struct PendingDial {
    pub(crate) id: DialId,
    answer: oneshot::Receiver<DialAnswer>,
    dials: PendingDials,
}

impl PendingDials {
    pub(crate) fn begin(&self) -> PendingDial {
        let (answer_tx, answer) = oneshot::channel();
        let id = DialId::random();
        self.lock().insert(id, answer_tx);
        PendingDial {
            id,
            answer,
            dials: self.clone(),
        }
    }

    /// Whether anybody waits for the answer.
    pub(crate) fn is_pending(&self, id: DialId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Hands the answer to whoever waits; gives it back when nobody does any more.
    pub(crate) fn answer(&self, id: DialId, answer: DialAnswer) -> Result<(), DialAnswer> {
        match self.lock().remove(&id) {
            Some(answer_tx) => answer_tx.send(answer),
            None => Err(answer),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DialId, oneshot::Sender<DialAnswer>>> {
        // The map is whole between any two of its operations, whatever panicked meanwhile.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingDial {
    /// The answer; `None` if it can no longer come.
    pub(crate) async fn answer(&mut self) -> Option<DialAnswer> {
        (&mut self.answer).await.ok()
    }

    /// Whether the agent still works on this dial.
    pub(crate) fn forget(&self) -> bool {
        self.dials.lock().remove(&self.id).is_some()
    }
}

impl Drop for PendingDial {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_reaches_the_dial_it_names() {
        let dials = PendingDials::default();
        let (mut first, mut second) = (dials.begin(), dials.begin());
        assert!(dials.answer(second.id, Err("refused".into())).is_ok());
        assert!(matches!(second.answer().await, Some(Err(error)) if error == "refused"));
        assert_eq!(dials.lock().len(), 1);
        assert!(dials.answer(first.id, Err("late".into())).is_ok());
        assert!(first.answer().await.is_some());
    }

    #[test]
    fn an_answer_after_the_client_left_comes_back() {
        let dials = PendingDials::default();
        let id = dials.begin().id;
        assert!(dials.lock().is_empty());
        assert!(matches!(dials.answer(id, Err("late".into())), Err(Err(_))));
    }
}
