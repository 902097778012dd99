//! One address of the list, and how it stands with dialling it.

use std::time::Instant;

use crate::{backoff::Backoff, model::ServerAddr};

#[derive(Debug)]
pub(super) struct Address {
    pub(super) server: ServerAddr,
    /// The server that it led to last, if another address had a session with that one.
    pub(super) leads_to: Option<String>,
    /// What it is being dialled for.
    pub(super) dialling: Option<Purpose>,
    pub(super) due: Instant,
    pub(super) backoff: Backoff,
    pub(super) last_dial: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It has no session.
    Itself,
    /// A server is missing that it may lead to.
    Discovery,
}

impl Address {
    pub(super) fn new(server: ServerAddr, due: Instant) -> Self {
        Self {
            server,
            leads_to: None,
            dialling: None,
            due,
            backoff: Backoff::default(),
            last_dial: 0,
        }
    }
}
