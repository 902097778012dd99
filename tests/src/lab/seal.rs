//! The one guard that keeps traffic inside: it asks the kernel, not the code that built the network.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::NetNs;

#[derive(Deserialize)]
struct Route {
    dst: String,
}

#[derive(Deserialize)]
struct Link {
    ifname: String,
    #[serde(rename = "link_type")]
    layer: String,
    /// The kernel's number for the namespace of a veth's other end.
    #[serde(rename = "link_netnsid")]
    peer_namespace: Option<i32>,
    linkinfo: Option<LinkInfo>,
}

#[derive(Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
}

/// A namespace that this one knows by number; those that `ip netns` made have a name.
#[derive(Deserialize)]
struct Neighbour {
    nsid: i32,
    name: Option<String>,
}

/// Addresses that nobody in a lab owns (RFC 5737, RFC 3849): a namespace with a way out has a route to them.
const ELSEWHERE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

pub(super) fn check(namespaces: &[&NetNs]) -> Result<()> {
    for namespace in namespaces {
        check_routes(namespace)?;
        check_links(namespace, namespaces)?;
    }
    Ok(())
}

fn check_routes(namespace: &NetNs) -> Result<()> {
    for family in ["-4", "-6"] {
        let routes: Vec<Route> = list(namespace, &format!("-j {family} route show table all"))?;
        if let Some(route) = routes.iter().find(|route| route.dst == "default") {
            bail!(
                "{}: has a {} route; nothing is run in it",
                namespace.name(),
                route.dst
            );
        }
    }
    for address in ELSEWHERE {
        if let Ok(route) = namespace.ip(&format!("route get {address}")) {
            bail!(
                "{}: has a way out ({}); nothing is run in it",
                namespace.name(),
                route.trim()
            );
        }
    }
    Ok(())
}

/// Besides the loopback link only veth pairs are expected, whose other end is in the lab as well.
fn check_links(namespace: &NetNs, lab: &[&NetNs]) -> Result<()> {
    let neighbours: Vec<Neighbour> = list(namespace, "-j netns list-id")?;
    let inside = |number: i32| {
        let name = neighbours
            .iter()
            .find(|other| other.nsid == number)?
            .name
            .as_deref()?;
        lab.iter().find(|other| other.name() == name)
    };
    let links: Vec<Link> = list(namespace, "-j -d link show")?;
    for link in links.iter().filter(|link| link.layer != "loopback") {
        let kind = link
            .linkinfo
            .as_ref()
            .and_then(|info| info.info_kind.as_deref());
        let other_end = link.peer_namespace.and_then(inside);
        if kind != Some("veth") || other_end.is_none() {
            let (name, link) = (namespace.name(), &link.ifname);
            bail!("{name}: the link {link} leads out of the lab; nothing is run in it");
        }
    }
    Ok(())
}

/// What an `ip -j` command lists; it prints nothing at all where there is nothing to list.
fn list<T: DeserializeOwned>(namespace: &NetNs, line: &str) -> Result<Vec<T>> {
    let listed = namespace.ip(line)?;
    if listed.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&listed).with_context(|| format!("read the output of ip {line}"))
}
