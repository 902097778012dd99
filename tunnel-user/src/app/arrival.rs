//! The server's proof to itself that what it captures arrives.
//!
//! ```text
//!  NodeTable --targets--> Prober --connect--> programs --> listener --> frontend, which answers
//!      ^---- set aside -----/ \--> readiness
//! ```
//! A firewall may drop what is sent to the listener: captured connects would hang until a time-out
//! of their own. A family whose probes fail is set aside in the kernel's table, which gives its
//! connects what they get while no server listens; the probes' own targets stay captured, so that
//! the way back is found.

mod judgement;
mod probe;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use self::{
    judgement::{Change, Judgement, Outcome},
    probe::Failure,
};
use super::node_table::SharedRedirect;
use crate::{
    frontend::transparent::{Arrivals, Listening},
    model::Family,
    observability::{metrics::ServerMetrics, readiness::Condition},
    redirect::GateState,
    wait::changed,
};

/// The pause between two rounds while all is well.
const INTERVAL: Duration = Duration::from_secs(2);
/// The pause while something is not: there is a judgement to reach.
const DOUBT: Duration = Duration::from_millis(500);

/// Sends the probes, and judges.
pub(super) struct Prober {
    /// What the kernel captures for them.
    pub(super) targets: watch::Receiver<Vec<SocketAddr>>,
    /// Where captured connects are sent.
    pub(super) listeners: watch::Receiver<Listening>,
    /// Clients that have arrived.
    pub(super) arrivals: Arrivals,
    /// Whether this server's tables are the kernel's.
    pub(super) in_charge: watch::Receiver<bool>,
    /// Whether the accept loop can accept; if not, the gate is closed for another reason.
    pub(super) accepting: watch::Receiver<bool>,
    /// Families of which nothing arrives.
    pub(super) set_aside: watch::Sender<BTreeSet<Family>>,
    /// Tells whether the gate is open: a server that was stalled has let it close by itself.
    pub(super) redirect: SharedRedirect,
    pub(super) condition: Condition,
    pub(super) metrics: ServerMetrics,
    pub(super) verdicts: Verdicts,
}

/// What is known of each family that is served.
#[derive(Default)]
pub(super) struct Verdicts {
    judgements: BTreeMap<Family, Judgement>,
    reasons: BTreeMap<Family, String>,
}

impl Prober {
    /// Probes until `end`.
    pub(super) async fn run(mut self, end: CancellationToken) {
        let _ = end.run_until_cancelled(self.probe_on()).await;
    }

    async fn probe_on(&mut self) {
        loop {
            let targets = self.targets.borrow_and_update().clone();
            let outcomes = join_all(targets.iter().map(|target| self.outcome(*target))).await;
            if self.may_judge() {
                self.judge(&targets, outcomes);
            }
            let pause = if self.is_sure() { INTERVAL } else { DOUBT };
            tokio::select! {
                () = sleep(pause) => {}
                () = changed(&mut self.targets) => {}
            }
        }
    }

    /// During a takeover another server may write the tables, and nothing is captured while the
    /// accept loop shows no life.
    fn may_judge(&self) -> bool {
        *self.in_charge.borrow() && *self.accepting.borrow()
    }

    async fn outcome(&self, target: SocketAddr) -> Result<(), Failure> {
        if !self.may_judge() {
            return Err(Failure::NotSent);
        }
        let family = Family::of(target.ip());
        let before = self.arrivals.of(family);
        let outcome = probe::send(target).await;
        if !matches!(outcome, Err(Failure::NotSent)) {
            self.metrics.arrival_probes.inc();
        }
        match outcome {
            // The queue is long, but it moves.
            Err(Failure::TimedOut | Failure::NoAnswer) if self.arrivals.of(family) != before => {
                Err(Failure::NotSent)
            }
            Err(Failure::NotRedirected) if !self.gate_is_open() => Err(Failure::NotSent),
            outcome => outcome,
        }
    }

    fn gate_is_open(&self) -> bool {
        let state = self.redirect.lock().state();
        state.is_ok_and(|state| state.gate == GateState::Open)
    }

    fn judge(&mut self, targets: &[SocketAddr], outcomes: Vec<Result<(), Failure>>) {
        let served: BTreeSet<_> = targets
            .iter()
            .map(|target| Family::of(target.ip()))
            .collect();
        self.verdicts
            .judgements
            .retain(|family, _| served.contains(family));
        self.verdicts
            .reasons
            .retain(|family, _| served.contains(family));
        for (target, outcome) in targets.iter().zip(outcomes) {
            let family = Family::of(target.ip());
            let judgement = self.verdicts.judgements.entry(family).or_default();
            let change = judgement.judge(match &outcome {
                Ok(()) => Outcome::Arrived,
                Err(Failure::NotSent) => Outcome::Unknown,
                Err(_) => Outcome::Lost,
            });
            if let Err(failure) = &outcome
                && !matches!(failure, Failure::NotSent)
            {
                self.metrics.arrival_probe_failures.inc();
                tracing::debug!(%family, cause = %failure, "a probe did not arrive");
            }
            match (change, outcome) {
                (Some(Change::Fails), Err(failure)) => self.fails(family, &failure),
                (Some(Change::Arrives), _) => self.arrives(family),
                _ => {}
            }
        }
        self.tell();
    }

    fn is_sure(&self) -> bool {
        let mut judgements = self.verdicts.judgements.values();
        judgements.all(|judgement| judgement.is_sure())
    }

    fn fails(&mut self, family: Family, failure: &Failure) {
        let listener = self.listener(family);
        let reason = failure.reason(family, &listener);
        tracing::warn!(%family, reason, "captured connects do not arrive: they are set aside");
        self.verdicts.reasons.insert(family, reason);
    }

    /// Without a listener of its own, a family's connects arrive at the other's.
    fn listener(&self, family: Family) -> String {
        let listeners = self.listeners.borrow();
        let listener = listeners.get(&family).or(listeners.values().next());
        listener.map_or_else(|| "nowhere".to_owned(), |socket| socket.address.to_string())
    }

    fn arrives(&mut self, family: Family) {
        tracing::info!(%family, "captured connects arrive again");
        self.verdicts.reasons.remove(&family);
    }

    fn tell(&self) {
        if !self.verdicts.reasons.is_empty() {
            let reasons: Vec<_> = self.verdicts.reasons.values().map(String::as_str).collect();
            self.condition.not_ready(reasons.join("; "));
        } else if self.is_sure() {
            self.condition.ready();
        }
        let families: BTreeSet<_> = self.verdicts.reasons.keys().copied().collect();
        self.set_aside.send_if_modified(|told| {
            let news = *told != families;
            *told = families;
            news
        });
    }
}
