//! Values as Go's flags take them. An empty one sets nothing: manifests cannot always leave a flag out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, bail};

/// <https://pkg.go.dev/strconv#ParseBool>
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it is neither true nor false".to_owned()),
    }
}

/// What a flag says, if it says something.
pub(super) fn non_empty(given: Option<&String>) -> Option<&str> {
    given.map(String::as_str).filter(|text| !text.is_empty())
}

pub(super) fn ip(flag: &str, given: Option<&String>) -> anyhow::Result<Option<IpAddr>> {
    let parse = |text: &str| {
        text.parse().with_context(|| {
            format!("--{flag} {text}: give an address, as in 192.0.2.1 or 2001:db8::1")
        })
    };
    non_empty(given).map(parse).transpose()
}

/// A number: Yurt-Tunnel would also take names of services, and 0 for a port that nobody knows.
pub(super) fn port(flag: &str, given: Option<&String>) -> anyhow::Result<Option<u16>> {
    let Some(text) = given else { return Ok(None) };
    match text.parse() {
        Ok(0) | Err(_) => bail!("--{flag} {text:?} is not a port: give a number from 1 to 65535"),
        Ok(port) => Ok(Some(port)),
    }
}

/// The items of a comma list; Yurt-Tunnel lets gaps pass, too.
pub(super) fn items(given: Option<&String>) -> impl Iterator<Item = &str> {
    let items = given.into_iter().flat_map(|list| list.split(','));
    items.map(str::trim).filter(|item| !item.is_empty())
}

/// Where Yurt-Tunnel listens unless it is told otherwise.
pub(super) fn loopback(beside: Option<IpAddr>) -> IpAddr {
    match beside {
        Some(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
        Some(IpAddr::V4(_)) | None => Ipv4Addr::LOCALHOST.into(),
    }
}
