//! Status for people: aligned columns, sizes and ages rounded to what an eye takes in.

use std::{
    fmt::{self, Display, Write as _},
    time::Duration,
};

use time::OffsetDateTime;

use super::super::table::{Table, join};
use super::services::services;
use crate::observability::status::{
    CertificateStatus, ClusterStatus, NodeStatus, PublishedStatus, RedirectStatus, Role,
    SessionStatus, StatusReport,
};

const DAY: u64 = 24 * 60 * 60;

/// The report as text, one section to a subject.
pub(super) fn table(report: &StatusReport) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_report(&mut text, report);
    text
}

fn write_report(out: &mut String, report: &StatusReport) -> fmt::Result {
    let now = report.reported_at;
    let role = match report.role {
        Role::Server => "server",
        Role::Agent => "agent",
    };
    let (version, pid) = (&report.version, report.pid);
    let up = Age(now - report.started_at);
    writeln!(out, "culvert {role} {version}, pid {pid}, up {up}")?;
    for condition in &report.conditions {
        match (&condition.reason, condition.ready) {
            (_, true) => writeln!(out, "  [+] {}", condition.name)?,
            (reason, false) => {
                let reason = reason.as_deref().unwrap_or("not ready");
                writeln!(out, "  [-] {}: {reason}", condition.name)?;
            }
        }
    }
    nodes(out, &report.nodes)?;
    sessions(out, &report.sessions, now)?;
    if let Some(redirect) = &report.redirect {
        write_redirect(out, redirect)?;
    }
    if let Some(cluster) = &report.cluster {
        write_cluster(out, cluster, now)?;
        published(out, &cluster.published, now)?;
    }
    certificates(out, &report.certificates, now)
}

fn nodes(out: &mut String, nodes: &[NodeStatus]) -> fmt::Result {
    let rows = nodes.iter().map(|node| {
        let state = if node.connected {
            "connected"
        } else {
            "offline"
        };
        let policy = match node.closed_gate {
            Some(policy) => lower(policy),
            None => "default".to_owned(),
        };
        [
            node.name.to_string(),
            state.to_owned(),
            list(&node.addresses),
            policy,
        ]
    });
    section(out, "NODES", nodes.len())?;
    columns(out, ["NAME", "STATE", "ADDRESSES", "CLOSED GATE"], rows)
}

fn sessions(out: &mut String, sessions: &[SessionStatus], now: OffsetDateTime) -> fmt::Result {
    let rows = sessions.iter().map(|session| {
        [
            session.node.to_string(),
            session.remote.to_string(),
            Age(now - session.connected_at).to_string(),
            session.open_connections.to_string(),
            Bytes(session.bytes_to_target).to_string(),
            Bytes(session.bytes_to_client).to_string(),
            session
                .peer_version
                .clone()
                .unwrap_or_else(|| "-".to_owned()),
        ]
    });
    section(out, "SESSIONS", sessions.len())?;
    let head = [
        "NODE",
        "REMOTE",
        "SINCE",
        "OPEN",
        "TO TARGET",
        "TO CLIENT",
        "PEER",
    ];
    columns(out, head, rows)
}

fn write_redirect(out: &mut String, redirect: &RedirectStatus) -> fmt::Result {
    let gate = if redirect.gate_open {
        "open".to_owned()
    } else {
        format!(
            "closed: connects to nodes get {}",
            lower(redirect.closed_gate)
        )
    };
    writeln!(out, "\nREDIRECT")?;
    let pairs = |map: Vec<String>| map.join(", ");
    let served = redirect.served_by.iter();
    let namespaces = redirect.client_namespaces.iter();
    let rules = redirect.yurt_tunnel_rules.iter();
    let rules = rules.map(|rules| ("iptables", format!("rules of Yurt-Tunnel's: {rules}")));
    let facts = [
        ("gate", gate),
        ("listens on", pairs(listeners(redirect))),
        (
            "served by",
            pairs(
                served
                    .map(|(clients, by)| format!("{clients} {by}"))
                    .collect(),
            ),
        ),
        (
            "namespaces",
            pairs(
                namespaces
                    .map(|(state, count)| format!("{count} {state}"))
                    .collect(),
            ),
        ),
        ("captures", redirect.cgroup.display().to_string()),
        ("pinned at", redirect.pinned_at.display().to_string()),
        ("ports", list(&redirect.ports)),
        ("entries", redirect.entries.to_string()),
    ];
    let facts: Vec<_> = facts.into_iter().chain(rules).collect();
    write_facts(out, &facts)?;
    services(out, redirect)?;
    section(out, "COUNTERS", redirect.counters.len())?;
    let rows = redirect
        .counters
        .iter()
        .map(|(event, count)| [event.clone(), count.to_string()]);
    columns(out, ["EVENT", "COUNT"], rows)
}

fn write_cluster(out: &mut String, cluster: &ClusterStatus, now: OffsetDateTime) -> fmt::Result {
    let nodes = match cluster.confirmed_at {
        Some(at) => format!("confirmed {} ago", Age(now - at)),
        None => "unknown yet".to_owned(),
    };
    let api = cluster.trouble.as_deref().unwrap_or("answers");
    let leader = match &cluster.leader {
        Some(leader) if cluster.leading => format!("{leader} (this server)"),
        Some(leader) => leader.clone(),
        None => "nobody".to_owned(),
    };
    let approvals = cluster.approvals;
    let approvals = if approvals.enabled {
        let (approved, denied) = (approvals.approved, approvals.denied);
        format!(
            "{approved} approved, {denied} denied, {} pending",
            approvals.pending
        )
    } else {
        "left to others".to_owned()
    };
    writeln!(out, "\nCLUSTER")?;
    write_facts(
        out,
        &[
            ("nodes", nodes),
            ("API server", api.to_owned()),
            ("leader", leader),
            ("servers", cluster.servers.to_string()),
            ("approvals", approvals),
        ],
    )
}

/// What this server has written while it led.
fn published(out: &mut String, published: &[PublishedStatus], now: OffsetDateTime) -> fmt::Result {
    if published.is_empty() {
        return Ok(());
    }
    let rows = published.iter().map(|one| {
        let written = one.written_at.map(|at| format!("{} ago", Age(now - at)));
        let trouble = if one.troubles.is_empty() {
            "-".to_owned()
        } else {
            one.troubles.join("; ")
        };
        [
            one.kind.as_str().to_owned(),
            one.object.clone(),
            one.entries.to_string(),
            written.unwrap_or_else(|| "never".to_owned()),
            trouble,
        ]
    });
    section(out, "PUBLISHED", published.len())?;
    columns(
        out,
        ["KIND", "OBJECT", "ENTRIES", "WRITTEN", "TROUBLE"],
        rows,
    )
}

fn write_facts(out: &mut String, facts: &[(&str, String)]) -> fmt::Result {
    for (name, fact) in facts {
        writeln!(out, "  {name:<10}  {fact}")?;
    }
    Ok(())
}

fn certificates(
    out: &mut String,
    certificates: &[CertificateStatus],
    now: OffsetDateTime,
) -> fmt::Result {
    let rows = certificates.iter().map(|certificate| {
        let left = certificate.expires_at - now;
        let left = if left.is_positive() {
            format!("in {}", Age(left))
        } else {
            "EXPIRED".to_owned()
        };
        [
            certificate.name.clone(),
            certificate.expires_at.date().to_string(),
            left,
            certificate.subject.clone().unwrap_or_default(),
        ]
    });
    section(out, "CERTIFICATES", certificates.len())?;
    columns(out, ["NAME", "EXPIRES", "", "SUBJECT"], rows)
}

pub(super) fn section(out: &mut String, title: &str, count: usize) -> fmt::Result {
    if count == 0 {
        writeln!(out, "\n{title}\n  none")
    } else {
        writeln!(out, "\n{title} ({count})")
    }
}

/// Prints rows under a head, indented; nothing without rows.
pub(super) fn columns<const N: usize>(
    out: &mut String,
    head: [&str; N],
    rows: impl ExactSizeIterator<Item = [String; N]>,
) -> fmt::Result {
    if rows.len() == 0 {
        return Ok(());
    }
    let mut table = Table::new(head);
    rows.for_each(|row| table.row(row));
    for line in table.to_string().lines() {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

fn list(items: &[impl ToString]) -> String {
    if items.is_empty() {
        return "-".to_owned();
    }
    join(items)
}

fn lower(policy: impl fmt::Debug) -> String {
    format!("{policy:?}").to_lowercase()
}

/// A length of time by its two largest units; hours do not matter beside many days.
struct Age(time::Duration);

impl Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::try_from(self.0).unwrap_or_default().as_secs();
        let (days, hours) = (seconds / DAY, seconds / 3600 % 24);
        let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds}s"),
            (0, 0, _) => write!(f, "{minutes}m{seconds}s"),
            (0, _, _) => write!(f, "{hours}h{minutes}m"),
            (..10, _, _) => write!(f, "{days}d{hours}h"),
            _ => write!(f, "{days}d"),
        }
    }
}

/// A number of bytes by the unit in which it has up to four digits.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if rest < 10_000 {
                return write!(f, "{rest} {unit}");
            }
            rest /= 1024;
        }
        write!(f, "{rest} TiB")
    }
}

/// Each with what speaks for it.
fn listeners(redirect: &RedirectStatus) -> Vec<String> {
    let listeners = redirect.listeners.iter();
    listeners
        .map(|address| match redirect.chosen.get(address) {
            Some(reason) => format!("{address} ({reason})"),
            None => address.to_string(),
        })
        .collect()
}
