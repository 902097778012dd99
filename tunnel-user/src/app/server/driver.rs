//! Carries out what a server's life decides, and tells it what happens.

use std::{io, mem};

use anyhow::bail;
use tokio::time::Instant;

use super::{
    Server,
    lifecycle::{Action, Circumstances, Event, Lifecycle, Notice},
};
use crate::{
    app::{
        signals::Stop,
        socket_takeover::{Offer, OldProcess, Predecessor, Step},
    },
    model::NodeName,
    observability::admin::OnConflict,
    redirect::addresses::local_route,
    tunnel::server::Sessions,
    wait::sleep_until_opt,
};

/// A server, and whom it has after and before it. Where an action fails they go in this order: a predecessor goes on
/// when nothing of this server is left.
pub(super) struct Driver {
    old_process: Option<OldProcess>,
    server: Server,
    /// Sockets that this server has no use for stay open as long as it lives.
    offer: Offer,
    predecessor: Option<Predecessor>,
    life: Lifecycle,
    successor_error: Option<io::Error>,
    task_error: Option<anyhow::Error>,
}

impl Driver {
    pub(super) fn new(
        mut server: Server,
        predecessor: Option<Predecessor>,
        offer: Offer,
        stop: &Stop,
    ) -> Self {
        let awaited = &mut server.awaited;
        let (graceful, abort) = (stop.graceful.clone(), stop.abort.clone());
        awaited.add(Event::ToldToStop, graceful.cancelled_owned());
        awaited.add(Event::Aborted, abort.cancelled_owned());
        let platform = &server.components.platform;
        awaited.add(Event::NodesKnown, platform.known.clone());
        awaited.add(Event::Certified, platform.certified.clone());
        let circumstances = Circumstances {
            takes_over: predecessor.is_some(),
            in_a_pod: server.args.kubernetes.cluster.in_a_pod(),
            drain_timeout: server.args.session.drain_timeout,
        };
        Self {
            old_process: None,
            server,
            offer,
            predecessor,
            life: Lifecycle::new(circumstances, Instant::now()),
            successor_error: None,
            task_error: None,
        }
    }

    /// Lives until the end.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        while !self.life.has_ended() {
            let event = self.next_event().await;
            for action in self.life.on(event, Instant::now()) {
                self.perform(action).await?;
            }
        }
        self.task_error.map_or(Ok(()), Err)
    }

    async fn next_event(&mut self) -> Event {
        tokio::select! {
            // Told to stop, a server takes nothing over.
            biased;
            event = self.server.awaited.next() => event,
            error = self.server.tasks.failed(), if self.life.needs_all_tasks() => {
                self.task_error = Some(error);
                Event::TaskFailed
            }
            () = all_have_sessions(&self.server.components.sessions, &self.offer.nodes),
                if self.life.awaits_agents() => Event::AgentsCame,
            step = next_step(&mut self.old_process) => match step {
                Ok(Step::Came) => Event::SuccessorCame,
                Ok(Step::TookOffer) => Event::OfferTaken,
                Ok(Step::Ready) => Event::SuccessorReady,
                Err(error) => {
                    self.successor_error = Some(error);
                    Event::SuccessorFailed
                }
            },
            () = sleep_until_opt(self.life.next_deadline()) => Event::TimePassed,
        }
    }

    async fn perform(&mut self, action: Action) -> anyhow::Result<()> {
        let server = &mut self.server;
        match action {
            Action::Tell(notice) => self.tell(notice),
            Action::GiveUp => bail!(
                "not able to take over ({}): the server that runs goes on",
                server.components.readiness.report(),
            ),
            Action::AnswerStatus => {
                let directory = server.args.run_dir.clone();
                let replace = OnConflict::Replace;
                server.answer_status(&directory, replace).await?;
            }
            Action::CheckPredecessor => {
                if let Some(predecessor) = &self.predecessor {
                    predecessor.still_waits()?;
                }
            }
            Action::TakeClients => server.take_clients()?,
            Action::AwaitSuccessor => {
                let sockets = server.sockets.offer()?;
                self.old_process = Some(OldProcess::new(&server.args.run_dir, sockets)?);
            }
            Action::DismissPredecessor => {
                if let Some(predecessor) = self.predecessor.take() {
                    predecessor.dismiss().await;
                }
            }
            Action::UseRanges => server.redirect.lock().use_ranges()?,
            Action::UseRangesWhenAlone => server.use_ranges_when_alone(),
            Action::LeaveCharge => {
                server.in_charge.send_replace(false);
            }
            Action::OfferSockets => self.offer_sockets(),
            Action::AskAgentsToMove => server.components.sessions.drain(),
            Action::GoOn => {
                self.let_successor_go("this server goes on");
                self.server.in_charge.send_replace(true);
            }
            Action::LetSuccessorGo => self.let_successor_go("this server stops without one"),
            Action::AwaitNoSuccessor => self.old_process = None,
            Action::TellNotReady => server.clients.not_ready("stopping"),
            Action::LeaveSockets => server.leave_sockets(),
            Action::LeaveQueue => server.shutdown.queue.cancel(),
            Action::StopMeta => server.shutdown.meta.cancel(),
            Action::CloseGate => server.close_gate(),
            Action::ReleasePins => server.redirect.lock().release(),
            Action::TakeNoClients => server.shutdown.service.cancel(),
            Action::ResetClients => server.shutdown.clients.cancel(),
            Action::EndSessions => server.shutdown.sessions.cancel(),
            Action::EndEverything => {
                server.shutdown.everything.cancel();
                mem::take(&mut server.tasks).finished().await;
            }
            Action::RemoveAddresses => {
                server.sockets.remove_service_addresses().await;
                local_route::remove(server.ranges).await;
            }
        }
        Ok(())
    }

    fn offer_sockets(&mut self) {
        if let Some(old_process) = &mut self.old_process {
            old_process.offer(self.server.components.sessions.nodes());
        }
    }

    fn let_successor_go(&mut self, consequence: &str) {
        if let Some(old_process) = &mut self.old_process {
            old_process.let_go();
        }
        let too_late = || io::ErrorKind::TimedOut.into();
        let error = self.successor_error.take().unwrap_or_else(too_late);
        tracing::warn!(%error, "a successor gave up: {consequence}");
    }

    fn tell(&self, notice: Notice) {
        match notice {
            Notice::StoppedBeforeAble => {
                tracing::info!("told to stop before it was able to serve");
            }
            Notice::StoppedBeforeTakeover => {
                tracing::info!("told to stop before it took over: the server that runs goes on");
            }
            Notice::AgentsMissing => {
                let missing = missing(&self.server.components.sessions, &self.offer.nodes);
                tracing::warn!(?missing, "taking over without the sessions of some nodes");
            }
            Notice::ClientsOutlivedDrain => {
                tracing::warn!("connections outlived the drain: resetting them");
            }
            Notice::AgentsOutlivedSessions => {
                tracing::info!("some agents did not take the end of their session");
            }
            Notice::AwaitsPodEnd => {
                tracing::info!("nothing is left to carry: waiting for the end of this pod");
            }
            Notice::Stopped => tracing::info!("stopped"),
        }
    }
}

/// Never resolves where no successor is waited for.
async fn next_step(old_process: &mut Option<OldProcess>) -> io::Result<Step> {
    match old_process {
        Some(old_process) => old_process.next().await,
        None => std::future::pending().await,
    }
}

async fn all_have_sessions(sessions: &Sessions, nodes: &[NodeName]) {
    let mut changes = sessions.changes();
    while !missing(sessions, nodes).is_empty() {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn missing<'a>(sessions: &Sessions, nodes: &'a [NodeName]) -> Vec<&'a str> {
    let missing = nodes.iter().filter(|node| !sessions.has(node));
    missing.map(NodeName::as_str).collect()
}
