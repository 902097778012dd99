//! Other servers, as those that have connections relayed here: how many links a machine may have, whose places it
//! takes, and that its clients drain with this server's own.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{model::NodeName, tunnel::Client};

/// The links that a machine keeps: its server's and a successor's, each besides one with the certificate before.
const MOST_LINKS: usize = 4;

/// All of them. Clones are the same.
#[derive(Clone, Default)]
pub struct RelayCallers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    machines: Mutex<HashMap<NodeName, Machine>>,
    /// Dials and connections; closed once no more are taken.
    relayed: TaskTracker,
}

/// What one machine has.
struct Machine {
    /// All links are this one's, from whatever addresses they come: the key is one.
    client: Client,
    /// The oldest first.
    links: VecDeque<OpenLink>,
    next_id: u64,
}

struct OpenLink {
    id: u64,
    ended: CancellationToken,
}

/// A link's place among those of its machine.
pub(in crate::tunnel) struct LinkPlace {
    callers: RelayCallers,
    machine: NodeName,
    id: u64,
    client: Client,
}

impl RelayCallers {
    /// Takes relayed dials until `stopping`, and waits until the last connection has ended; those that `abort` finds
    /// are reset.
    pub async fn run(self, stopping: CancellationToken, abort: CancellationToken) {
        stopping.cancelled().await;
        self.0.relayed.close();
        tokio::select! {
            () = self.0.relayed.wait() => return,
            () = abort.cancelled() => {}
        }
        for machine in self.machines().values() {
            machine.links.iter().for_each(|link| link.ended.cancel());
        }
        self.0.relayed.wait().await;
    }

    /// A link that comes from there, and that `ended` ends: with more than enough of them the oldest gives way.
    pub(in crate::tunnel) fn admit(
        &self,
        machine: &NodeName,
        from: IpAddr,
        ended: CancellationToken,
    ) -> LinkPlace {
        let mut machines = self.machines();
        let has = machines.entry(machine.clone()).or_insert_with(|| Machine {
            client: Client::Address(from),
            links: VecDeque::new(),
            next_id: 0,
        });
        let id = has.next_id;
        has.next_id += 1;
        has.links.push_back(OpenLink { id, ended });
        if has.links.len() > MOST_LINKS
            && let Some(oldest) = has.links.pop_front()
        {
            tracing::warn!(%machine, "a server opens more links than it needs: ending its oldest");
            oldest.ended.cancel();
        }
        LinkPlace {
            callers: self.clone(),
            machine: machine.clone(),
            id,
            client: has.client,
        }
    }

    /// Held by a relayed dial, and by its connection; `None` once no more are taken.
    pub(in crate::tunnel) fn relayed(&self) -> Option<TaskTrackerToken> {
        // Before the question: whoever waits for the last one waits for this one too, or it gets none.
        let token = self.0.relayed.token();
        (!self.0.relayed.is_closed()).then_some(token)
    }

    /// How many a machine has.
    #[cfg(test)]
    pub(in crate::tunnel) fn links(&self, machine: &NodeName) -> usize {
        let machines = self.machines();
        machines
            .get(machine)
            .map_or(0, |machine| machine.links.len())
    }

    fn machines(&self) -> MutexGuard<'_, HashMap<NodeName, Machine>> {
        // Whole between any two operations, whatever panicked meanwhile.
        self.0
            .machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkPlace {
    /// Whose places the link's connections take.
    pub(in crate::tunnel) fn client(&self) -> Client {
        self.client
    }

    /// Whether its machine has none that is newer.
    pub(in crate::tunnel) fn is_newest(&self) -> bool {
        let machines = self.callers.machines();
        let newest = machines
            .get(&self.machine)
            .and_then(|machine| machine.links.back());
        newest.is_some_and(|link| link.id == self.id)
    }
}

impl Drop for LinkPlace {
    fn drop(&mut self) {
        let mut machines = self.callers.machines();
        if let Some(machine) = machines.get_mut(&self.machine) {
            machine.links.retain(|link| link.id != self.id);
            if machine.links.is_empty() {
                machines.remove(&self.machine);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn admit(
        callers: &RelayCallers,
        machine: &str,
        from: [u8; 4],
    ) -> (LinkPlace, CancellationToken) {
        let ended = CancellationToken::new();
        let machine = machine.parse().unwrap();
        let place = callers.admit(&machine, from.into(), ended.clone());
        (place, ended)
    }

    #[test]
    fn a_machine_has_few_links_and_the_places_of_one_client() {
        let callers = RelayCallers::default();
        let (other, other_ended) = admit(&callers, "worker-2", [10, 0, 0, 2]);
        let mut links: Vec<_> = (1..=6)
            .map(|last| admit(&callers, "worker-1", [10, 0, 1, last]))
            .collect();
        let ended: Vec<bool> = links
            .iter()
            .map(|(_, ended)| ended.is_cancelled())
            .collect();
        assert_eq!(ended, [true, true, false, false, false, false]);
        assert!(!other_ended.is_cancelled() && other.is_newest());
        let client = Client::Address([10, 0, 1, 1].into());
        assert!(links.iter().all(|(place, _)| place.client() == client));
        let newest: Vec<bool> = links.iter().map(|(place, _)| place.is_newest()).collect();
        assert_eq!(newest, [false, false, false, false, false, true]);
        drop(links.pop());
        assert!(links.last().unwrap().0.is_newest());
        drop((links, other));
        assert!(callers.machines().is_empty());
    }

    #[tokio::test]
    async fn relayed_connections_drain_and_no_more_are_taken() {
        let callers = RelayCallers::default();
        let (_link, ended) = admit(&callers, "worker-1", [10, 0, 0, 1]);
        let connection = callers.relayed().expect("it takes dials");
        let (stopping, abort) = (CancellationToken::new(), CancellationToken::new());
        let mut draining = Box::pin(callers.clone().run(stopping.clone(), abort.clone()));
        assert!(draining.as_mut().now_or_never().is_none());
        stopping.cancel();
        assert!(draining.as_mut().now_or_never().is_none());
        assert!(callers.relayed().is_none());
        abort.cancel();
        assert!(draining.as_mut().now_or_never().is_none());
        assert!(ended.is_cancelled());
        drop(connection);
        draining.await;
    }
}
