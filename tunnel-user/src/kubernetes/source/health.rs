//! How current the snapshot is, and whether it is kept so.

use std::time::Duration;

use time::OffsetDateTime;

use super::saved::Saved;

/// How the source stands with the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceHealth {
    /// Where the snapshot is from.
    pub origin: Origin,
    /// When the API server last confirmed it; while the nodes are followed, it does all the time.
    pub heard_at: Option<OffsetDateTime>,
    /// The watch on Nodes.
    pub nodes: WatchHealth,
    /// The watch on the `ConfigMap` of the ports.
    pub ports_config: WatchHealth,
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

    /// For how long nobody has confirmed the snapshot; `None` without one.
    pub fn age(&self, now: OffsetDateTime) -> Option<Duration> {
        let since = match (&self.nodes, self.origin) {
            (_, Origin::Nowhere) => return None,
            (WatchHealth::Connected, Origin::ApiServer) => now,
            (_, Origin::Disk(saved_at)) => self.heard_at.unwrap_or(saved_at),
            (WatchHealth::Connecting | WatchHealth::Lost { .. }, Origin::ApiServer) => {
                self.heard_at.unwrap_or(now)
            }
        };
        Some((now - since).try_into().unwrap_or(Duration::ZERO))
    }
}

impl WatchHealth {
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
    fn a_snapshot_ages_while_nobody_confirms_it() {
        let mut health = SourceHealth::default();
        assert_eq!(health.age(NOW), None);
        health.origin = Origin::Disk(NOW - 5 * MINUTE);
        assert_eq!(health.age(NOW), Some(5 * MINUTE));
        health.origin = Origin::ApiServer;
        health.nodes.connected();
        health.heard_at = Some(NOW - 3 * MINUTE);
        assert_eq!(health.age(NOW), Some(Duration::ZERO), "nothing has changed");
        health.nodes.lost("gone".to_owned(), NOW);
        assert_eq!(health.age(NOW), Some(3 * MINUTE));
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
