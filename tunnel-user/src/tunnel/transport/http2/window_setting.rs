//! The window that a session's peer is told of for each connection, as memory becomes scarce or is
//! there again.

use std::{future::pending, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::tunnel::Memory;

/// When to offer a setting again while the peer has not acknowledged the one before.
const AGAIN: Duration = Duration::from_millis(500);

/// What the peer was told, and what it is to be told.
pub(crate) struct WindowSetting {
    wanted: watch::Receiver<u32>,
    told: u32,
    not_before: Option<Instant>,
}

impl WindowSetting {
    /// For a session that begins with [`Self::told`].
    pub(crate) fn new(memory: &Memory) -> Self {
        let wanted = memory.windows();
        let told = *wanted.borrow();
        Self {
            wanted,
            told,
            not_before: None,
        }
    }

    /// The window that the peer knows, or will.
    pub(crate) fn told(&self) -> u32 {
        self.told
    }

    /// Resolves to the window that the peer is to be told next. Dropping it loses nothing.
    pub(crate) async fn due(&mut self) -> u32 {
        loop {
            let wanted = *self.wanted.borrow_and_update();
            if wanted == self.told {
                if self.wanted.changed().await.is_err() {
                    return pending().await;
                }
                continue;
            }
            let Some(not_before) = self.not_before else {
                return wanted;
            };
            sleep_until(not_before).await;
            self.not_before = None;
        }
    }

    /// Notes that it was told, or that it could not be: only one setting may be under way.
    pub(crate) fn tell(&mut self, window: u32, told: &Result<(), h2::Error>) {
        match told {
            Ok(()) => self.told = window,
            Err(_) => self.not_before = Some(Instant::now() + AGAIN),
        }
    }
}
