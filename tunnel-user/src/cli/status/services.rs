//! Services with nodes among their endpoints, for people.

use std::fmt::{self, Write as _};

use super::render::{columns, section};
use crate::observability::status::RedirectStatus;

/// Nothing where there is none, and nothing to say of that.
pub(super) fn services(out: &mut String, redirect: &RedirectStatus) -> fmt::Result {
    let services = &redirect.services;
    if !services.is_empty() || redirect.services_trouble.is_some() {
        section(out, "SERVICES", services.len())?;
    }
    if let Some(trouble) = &redirect.services_trouble {
        writeln!(out, "  not followed: {trouble}")?;
    }
    let rows = services.iter().map(|one| {
        let tunnelled = one.tunnelled.map(|count| count.to_string());
        let state = if one.caught { "caught" } else { "no room" };
        [
            one.service.clone(),
            one.address.to_string(),
            one.endpoints.to_string(),
            tunnelled.unwrap_or_else(|| "-".to_owned()),
            state.to_owned(),
        ]
    });
    let head = ["SERVICE", "ADDRESS", "ENDPOINTS", "TUNNELLED", "STATE"];
    columns(out, head, rows)
}
