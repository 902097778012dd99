//! How current the snapshot is, and whether it is kept so.

use time::OffsetDateTime;

use super::saved::Saved;

/// How the source stands with the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceHealth {
    /// Where the snapshot is from.
    pub origin: Origin,
    /// The watch on Nodes.
    pub nodes: WatchHealth,
    /// The watch on the `ConfigMap` of the ports.
    pub ports_config: WatchHealth,
    /// Why the cluster's own addresses, which no node may claim, are not followed now.
    pub cluster_addresses: Option<String>,
}

/// Where a snapshot is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// There is none yet: it is empty.
    #[default]
    Nowhere,
    /// From the disk: a server saved it then.
    Disk(OffsetDateTime),
    /// From the API server.
    ApiServer,
}

/// How one watch stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WatchHealth {
    /// It has not succeeded yet.
    #[default]
    Connecting,
    /// Every change arrives.
    Connected,
    /// It broke, or could not be made; it is tried again every few seconds.
    Lost {
        /// When it was first found broken.
        since: OffsetDateTime,
        /// The newest cause.
        error: String,
    },
}

impl SourceHealth {
    pub(super) fn starting(saved: Option<&Saved>) -> Self {
        let origin = saved.map_or(Origin::Nowhere, |saved| Origin::Disk(saved.written_at));
        Self {
            origin,
            ..Self::default()
        }
    }

    /// Whether there is a snapshot to serve; if not, why.
    pub fn ready(&self) -> Result<(), String> {
        match (&self.origin, &self.nodes) {
            (Origin::Disk(_) | Origin::ApiServer, _) => Ok(()),
            (Origin::Nowhere, WatchHealth::Lost { error, .. }) => Err(format!(
                "no snapshot yet: none is on disk, and the API server does not tell of nodes: {error}"
            )),
            (Origin::Nowhere, WatchHealth::Connecting | WatchHealth::Connected) => Err(
                "no snapshot yet: none is on disk, and the API server has not told of all nodes"
                    .to_owned(),
            ),
        }
    }

    /// When the API server last confirmed nodes and ports: now, while both are followed; `None` while
    /// there is no snapshot. A connection that dies in silence is found to be dead within a minute.
    pub fn confirmed_at(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        match self.origin {
            Origin::Nowhere => None,
            Origin::Disk(saved_at) => Some(saved_at),
            Origin::ApiServer => {
                let watches = [&self.nodes, &self.ports_config];
                let lost = watches.into_iter().filter_map(WatchHealth::lost_since);
                Some(lost.min().unwrap_or(now))
            }
        }
    }

    /// Why nodes, ports, or the addresses that no node may have, are not followed now.
    pub fn trouble(&self) -> Option<String> {
        let watches = [("nodes", &self.nodes), ("ports", &self.ports_config)];
        let lost = watches.iter().filter_map(|(what, watch)| match watch {
            WatchHealth::Lost { error, .. } => Some(format!("cannot follow {what}: {error}")),
            WatchHealth::Connecting | WatchHealth::Connected => None,
        });
        let lost = lost.chain(self.cluster_addresses.clone());
        lost.reduce(|one, other| format!("{one}; {other}"))
    }
}

impl WatchHealth {
    pub(super) fn is_lost(&self) -> bool {
        self.lost_since().is_some()
    }

    fn lost_since(&self) -> Option<OffsetDateTime> {
        match self {
            Self::Lost { since, .. } => Some(*since),
            Self::Connecting | Self::Connected => None,
        }
    }

    /// Notes that news came; whether that is news.
    pub(super) fn connected(&mut self) -> bool {
        std::mem::replace(self, Self::Connected) != Self::Connected
    }

    /// Notes an error; whether the watch worked until then.
    pub(super) fn lost(&mut self, error: String, now: OffsetDateTime) -> bool {
        let (first, since) = match self {
            Self::Lost { since, .. } => (false, *since),
            Self::Connecting | Self::Connected => (true, now),
        };
        *self = Self::Lost { since, error };
        first
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn is_ready_with_a_snapshot_from_anywhere_and_says_what_is_missing() {
        let mut health = SourceHealth::default();
        assert!(health.ready().unwrap_err().contains("no snapshot yet"));
        health.nodes.lost("connection refused".to_owned(), NOW);
        assert!(health.ready().unwrap_err().contains("connection refused"));
        health.origin = Origin::Disk(NOW);
        assert_eq!(health.ready(), Ok(()));
        health.origin = Origin::ApiServer;
        assert_eq!(health.ready(), Ok(()));
    }

    #[test]
    fn a_snapshot_is_confirmed_while_nodes_are_followed() {
        let mut health = SourceHealth::default();
        assert_eq!(health.confirmed_at(NOW), None);
        health.origin = Origin::Disk(NOW - 5 * MINUTE);
        health.nodes.connected();
        let saved = health.confirmed_at(NOW);
        assert_eq!(saved, Some(NOW - 5 * MINUTE), "a list is not whole yet");
        health.origin = Origin::ApiServer;
        assert_eq!(health.confirmed_at(NOW), Some(NOW), "nothing has changed");
        health
            .ports_config
            .lost("forbidden".to_owned(), NOW - MINUTE);
        assert_eq!(health.confirmed_at(NOW), Some(NOW - MINUTE));
        health.nodes.lost("gone".to_owned(), NOW - 2 * MINUTE);
        assert_eq!(health.confirmed_at(NOW), Some(NOW - 2 * MINUTE));
    }

    #[test]
    fn trouble_names_what_is_not_followed() {
        let mut health = SourceHealth::default();
        assert_eq!(health.trouble(), None);
        health.ports_config.lost("forbidden".to_owned(), NOW);
        let ports = "cannot follow ports: forbidden";
        assert_eq!(health.trouble().as_deref(), Some(ports));
        health.nodes.lost("gone".to_owned(), NOW);
        let both = format!("cannot follow nodes: gone; {ports}");
        assert_eq!(health.trouble(), Some(both));
    }

    #[test]
    fn a_loss_counts_from_its_first_error_and_shows_the_last() {
        let mut watch = WatchHealth::default();
        assert!(watch.connected());
        assert!(!watch.connected());
        assert!(watch.lost("one".to_owned(), NOW));
        assert!(!watch.lost("two".to_owned(), NOW + MINUTE));
        let (since, error) = (NOW, "two".to_owned());
        assert_eq!(watch, WatchHealth::Lost { since, error });
        assert!(watch.connected());
    }
}
