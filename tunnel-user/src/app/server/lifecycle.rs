//! A server's life, from the moment at which it takes agents to its end: a plain state machine.
//!
//! ```text
//!  Starting                    takes agents, until it knows the nodes
//!   |   \ takes over           and has a certificate: for 30 s at most
//!   |    WaitingForAgents      until those of the predecessor have come, for 10 s at most
//!   |   /
//!  Serving <---------.         takes clients
//!   |   \             | it gives up, or takes too long
//!   |    HandingOver -'        a successor has come; it gets the sockets, then the agents
//!   |   / told to stop, a task has failed, or the successor takes clients
//!  DrainingClients             until the last has gone; a server that stops still hands over to whoever comes
//!   |   \ --drain-timeout is over, or a second signal
//!   |    ResettingClients      until the last has gone
//!   |   /
//!  EndingSessions              until the last has ended; what is left of --drain-timeout, and 7 s at least
//!   |   \ handed over, in a pod
//!   |    WaitingForPodEnd      until it is told to stop
//!   |   /
//!  Ended                       whoever is told to stop before it takes clients, or fails, is here at once
//! ```
//! It knows no sockets, no tasks and no clock: it is told what happens and what time it is, and says what to do, in
//! order. An action that fails ends the process with its reason at once, in whatever phase, and the kernel empties the
//! gate's slot; so does a second signal, half a second later.

mod vocabulary;

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

pub(super) use self::vocabulary::{Action, Event, Notice};
use crate::app::socket_takeover::{OFFER_TIME, READY_TIME};

/// How long a successor waits until it knows the nodes and has a certificate that agents take: its
/// predecessor has patience for a minute.
const ABLE: Duration = Duration::from_secs(30);
/// How long a successor waits for the agents of its predecessor before it takes clients.
const AGENTS_COME: Duration = Duration::from_secs(10);
/// The least that agents get to take the last bytes, and the last words.
const SESSIONS_END: Duration = Duration::from_secs(7);

/// What is settled when a life begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    /// Another server runs, and this one takes over from it.
    pub(super) takes_over: bool,
    /// A container that ends before its pod is started again.
    pub(super) in_a_pod: bool,
    /// How long clients may go on after the end has begun.
    pub(super) drain_timeout: Duration,
}

/// Decides what a server does next. It is told everything by [`Lifecycle::on`].
#[derive(Debug)]
pub(super) struct Lifecycle {
    circumstances: Circumstances,
    phase: Phase,
    /// What has happened, and still matters: some of it may come before its time.
    happened: BTreeSet<Event>,
    /// Whether a successor has the sockets, and the gate.
    handed_over: bool,
}

/// Where a life stands; `by` is when it goes on whatever has not happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has bound its sockets and takes agents. A table that is written before nodes are known would take every
    /// node away that a server before this one had; and agents that leave that one must not come in vain.
    Starting { by: Option<Instant> },
    /// The predecessor's agents are on their way.
    WaitingForAgents { by: Instant },
    /// It takes clients.
    Serving,
    /// It takes clients, but neither agents nor care of the kernel's tables.
    HandingOver { by: Instant },
    /// What is under way finishes. A successor that comes to a server that was stopped has to be ready by then.
    DrainingClients {
        by: Instant,
        successor: Option<Instant>,
    },
    /// What outlived the drain ends now; it has no time of its own.
    ResettingClients { drained_by: Instant },
    /// Agents take the last bytes, and the last words.
    EndingSessions { by: Instant },
    /// It has nothing left to do, and must not end.
    WaitingForPodEnd,
    /// Nothing of it is left.
    Ended,
}

impl Lifecycle {
    pub(super) fn new(circumstances: Circumstances, now: Instant) -> Self {
        let by = circumstances.takes_over.then(|| now + ABLE);
        Self {
            circumstances,
            phase: Phase::Starting { by },
            happened: BTreeSet::new(),
            handed_over: false,
        }
    }

    /// What to do now that this has happened, in order.
    pub(super) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        self.happened.insert(event);
        let mut actions = Vec::new();
        while let Some(next) = self.next_phase(now, &mut actions) {
            self.phase = next;
        }
        actions
    }

    /// When to say that [time has passed](Event::TimePassed), if nothing happens before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Starting { by } => by,
            Phase::WaitingForAgents { by }
            | Phase::HandingOver { by }
            | Phase::EndingSessions { by } => Some(by),
            Phase::DrainingClients { by, successor } => {
                Some(successor.map_or(by, |successor| successor.min(by)))
            }
            Phase::Serving
            | Phase::ResettingClients { .. }
            | Phase::WaitingForPodEnd
            | Phase::Ended => None,
        }
    }

    /// Whether a task that ends has failed: at the end all of them are told to.
    pub(super) fn needs_all_tasks(&self) -> bool {
        matches!(
            self.phase,
            Phase::Starting { .. }
                | Phase::WaitingForAgents { .. }
                | Phase::Serving
                | Phase::HandingOver { .. }
        )
    }

    /// Whether to say when all nodes of the predecessor have a session here.
    pub(super) fn awaits_agents(&self) -> bool {
        matches!(self.phase, Phase::WaitingForAgents { .. })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Where to go from here, if it is time; `actions` get what belongs to that.
    fn next_phase(&mut self, now: Instant, actions: &mut Vec<Action>) -> Option<Phase> {
        match self.phase {
            Phase::Starting { by } => self.starting(by.is_some_and(|by| now >= by), now, actions),
            Phase::WaitingForAgents { by } => self.waiting_for_agents(now >= by, actions),
            Phase::Serving => self.serving(now, actions),
            Phase::HandingOver { by } => self.handing_over(by, now, actions),
            Phase::DrainingClients { by, successor } => {
                self.draining_clients(by, successor, now, actions)
            }
            Phase::ResettingClients { drained_by } => {
                let gone = self.has(Event::ClientsGone);
                gone.then(|| end_sessions(drained_by, now, actions))
            }
            Phase::EndingSessions { by } => self.ending_sessions(now >= by, actions),
            Phase::WaitingForPodEnd => {
                let told = self.has(Event::ToldToStop);
                told.then(|| self.end(actions))
            }
            Phase::Ended => None,
        }
    }

    fn starting(&self, late: bool, now: Instant, actions: &mut Vec<Action>) -> Option<Phase> {
        let takes_over = self.circumstances.takes_over;
        if self.has(Event::ToldToStop) {
            actions.push(Action::Tell(Notice::StoppedBeforeAble));
            return Some(Phase::Ended);
        }
        if self.has(Event::TaskFailed) {
            return Some(Phase::Ended);
        }
        if !self.has(Event::NodesKnown) || takes_over && !self.has(Event::Certified) {
            return late.then(|| {
                actions.push(Action::GiveUp);
                Phase::Ended
            });
        }
        if takes_over {
            let by = now + AGENTS_COME;
            return Some(Phase::WaitingForAgents { by });
        }
        actions.extend([Action::TakeClients, Action::AwaitSuccessor]);
        // What is pinned may be of one that used others, or none.
        actions.push(Action::UseRanges);
        Some(Phase::Serving)
    }

    fn waiting_for_agents(&self, late: bool, actions: &mut Vec<Action>) -> Option<Phase> {
        if self.has(Event::ToldToStop) {
            actions.push(Action::Tell(Notice::StoppedBeforeTakeover));
            return Some(Phase::Ended);
        }
        if self.has(Event::TaskFailed) {
            return Some(Phase::Ended);
        }
        if !self.has(Event::AgentsCame) {
            if !late {
                return None;
            }
            actions.push(Action::Tell(Notice::AgentsMissing));
        }
        actions.extend([
            // Only now: should this server fail to get here, the other still answers.
            Action::AnswerStatus,
            Action::CheckPredecessor,
            Action::TakeClients,
            Action::AwaitSuccessor,
            Action::DismissPredecessor,
            Action::UseRangesWhenAlone,
        ]);
        Some(Phase::Serving)
    }

    fn serving(&mut self, now: Instant, actions: &mut Vec<Action>) -> Option<Phase> {
        if self.has_to_stop() {
            return Some(self.stop(None, now, actions));
        }
        if self.happened.remove(&Event::SuccessorFailed) {
            actions.push(Action::GoOn);
        }
        self.happened.remove(&Event::SuccessorCame).then(|| {
            actions.extend([Action::LeaveCharge, Action::OfferSockets]);
            let by = now + OFFER_TIME;
            Phase::HandingOver { by }
        })
    }

    fn handing_over(
        &mut self,
        by: Instant,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Option<Phase> {
        if self.has_to_stop() {
            return Some(self.stop(Some(by), now, actions));
        }
        if self.happened.remove(&Event::SuccessorReady) {
            return Some(self.hand_over(now, actions));
        }
        if self.happened.remove(&Event::OfferTaken) {
            actions.push(Action::AskAgentsToMove);
            let by = now + READY_TIME;
            return Some(Phase::HandingOver { by });
        }
        let failed = self.happened.remove(&Event::SuccessorFailed);
        (failed || now >= by).then(|| {
            actions.push(Action::GoOn);
            Phase::Serving
        })
    }

    /// A successor takes clients.
    fn hand_over(&mut self, now: Instant, actions: &mut Vec<Action>) -> Phase {
        self.handed_over = true;
        actions.extend([
            Action::AwaitNoSuccessor,
            Action::TellNotReady,
            // The tables stay as they are: sessions that end now say nothing of their nodes.
            Action::LeaveCharge,
            // A successor that dies must leave no listening socket behind: the kernel would go on
            // redirecting to it. And one that lives must not share its callers with this server.
            Action::LeaveSockets,
            Action::LeaveQueue,
            Action::StopMeta,
        ]);
        self.drain(None, now, actions)
    }

    /// It was told to stop, or cannot go on. A successor that is there, or comes before the last client has gone, gets
    /// the sockets all the same: it could not bind them.
    fn stop(&self, successor: Option<Instant>, now: Instant, actions: &mut Vec<Action>) -> Phase {
        actions.extend([Action::TellNotReady, Action::LeaveCharge, Action::CloseGate]);
        self.drain(successor, now, actions)
    }

    fn drain(&self, successor: Option<Instant>, now: Instant, actions: &mut Vec<Action>) -> Phase {
        // Should the successor die, the next server need not wait for this one.
        actions.extend([Action::ReleasePins, Action::TakeNoClients]);
        let by = now + self.circumstances.drain_timeout;
        Phase::DrainingClients { by, successor }
    }

    fn draining_clients(
        &mut self,
        by: Instant,
        successor: Option<Instant>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Option<Phase> {
        let is_late = successor.is_some_and(|ready_by| now >= ready_by);
        if let Some(next) = self.late_successor(by, is_late, now, actions) {
            return Some(next);
        }
        let gone = self.has(Event::ClientsGone) && successor.is_none();
        if !gone && !self.has(Event::Aborted) {
            if now < by {
                return None;
            }
            actions.push(Action::Tell(Notice::ClientsOutlivedDrain));
        }
        if !self.handed_over {
            actions.push(Action::AwaitNoSuccessor);
        }
        // Also where only who accepts them is gone.
        actions.push(Action::ResetClients);
        Some(if gone {
            end_sessions(by, now, actions)
        } else {
            Phase::ResettingClients { drained_by: by }
        })
    }

    /// What a successor does that comes to a server which has stopped, and drains.
    fn late_successor(
        &mut self,
        by: Instant,
        is_late: bool,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Option<Phase> {
        let with = |successor| Some(Phase::DrainingClients { by, successor });
        if self.happened.remove(&Event::SuccessorCame) {
            actions.push(Action::OfferSockets);
            with(Some(now + OFFER_TIME))
        } else if self.happened.remove(&Event::OfferTaken) {
            actions.push(Action::AskAgentsToMove);
            with(Some(now + READY_TIME))
        } else if self.happened.remove(&Event::SuccessorReady) {
            self.handed_over = true;
            // What was queued has been accepted when this server stopped.
            actions.extend([
                Action::AwaitNoSuccessor,
                Action::LeaveSockets,
                Action::StopMeta,
            ]);
            with(None)
        } else if self.happened.remove(&Event::SuccessorFailed) || is_late {
            actions.push(Action::LetSuccessorGo);
            with(None)
        } else {
            None
        }
    }

    fn ending_sessions(&self, late: bool, actions: &mut Vec<Action>) -> Option<Phase> {
        if !self.has(Event::SessionsGone) && !self.has(Event::Aborted) {
            if !late {
                return None;
            }
            actions.push(Action::Tell(Notice::AgentsOutlivedSessions));
        }
        if self.circumstances.in_a_pod && self.handed_over {
            // A container that ends before its pod is started again, and would take it all back.
            actions.push(Action::Tell(Notice::AwaitsPodEnd));
            return Some(Phase::WaitingForPodEnd);
        }
        Some(self.end(actions))
    }

    fn end(&self, actions: &mut Vec<Action>) -> Phase {
        actions.extend([Action::StopMeta, Action::EndEverything]);
        if !self.handed_over {
            actions.push(Action::RemoveAddresses);
        }
        actions.push(Action::Tell(Notice::Stopped));
        Phase::Ended
    }

    fn has_to_stop(&self) -> bool {
        self.has(Event::ToldToStop) || self.has(Event::TaskFailed)
    }

    fn has(&self, event: Event) -> bool {
        self.happened.contains(&event)
    }
}

fn end_sessions(drained_by: Instant, now: Instant, actions: &mut Vec<Action>) -> Phase {
    actions.push(Action::EndSessions);
    let by = drained_by.max(now + SESSIONS_END);
    Phase::EndingSessions { by }
}

#[cfg(test)]
mod tests;
