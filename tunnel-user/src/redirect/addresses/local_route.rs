//! The routes of the ranges: what is sent there is this machine's own, though no interface has the
//! addresses. They carry a mark, by which whoever comes later knows them for ours.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use tracing::{info, warn};

use super::{netlink::Netlink, routes::Route};
use crate::redirect::LocalRanges;

/// Why a range is not routed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// An address of this machine lies in it.
    #[error("{0} is an address of this machine, and lies in it")]
    OwnAddress(IpAddr),
    /// Something else is routed there.
    #[error("this machine has a route to {0}")]
    Routed(IpNet),
    /// The kernel refused.
    #[error("the kernel refuses a local route")]
    Kernel(#[from] io::Error),
}

/// Routes those of the ranges that need it. One that cannot be is left out, and `refused` is told why.
pub async fn add_all(mut ranges: LocalRanges, refused: impl Fn(IpNet, RouteError)) -> LocalRanges {
    let is_routed = async |net| add(net).await.map_err(|error| refused(net, error)).is_ok();
    if let Some(net) = ranges.pods
        && !is_routed(net.into()).await
    {
        ranges.pods = None;
    }
    if let Some(net) = ranges.v6
        && !is_routed(net.into()).await
    {
        ranges.v6 = None;
    }
    ranges
}

/// Routes a range to the loopback interface, unless that is done already.
///
/// # Errors
/// When the range is in use for something else, or the kernel refuses.
pub async fn add(net: IpNet) -> Result<(), RouteError> {
    let mut netlink = Netlink::new()?;
    let routes = netlink.routes().await?;
    let addresses = netlink.addresses().await?;
    check(net, &routes, addresses.iter().map(|own| own.ip))?;
    let is_this = |route: &&Route| route.ours && route.destination == Some(net);
    if routes.iter().any(|route| is_this(&route)) {
        return Ok(());
    }
    match netlink.add_local_route(net).await {
        Ok(()) => {
            info!(range = %net, "local route added");
            Ok(())
        }
        // Somebody else was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes every route that any server added.
pub async fn remove_all() {
    remove_where(|_| true).await;
}

/// Removes those of these ranges: others may be another server's, beside this one.
pub async fn remove(ranges: LocalRanges) {
    let nets = [ranges.pods.map(IpNet::from), ranges.v6.map(IpNet::from)];
    remove_where(|net| nets.contains(&Some(net))).await;
}

async fn remove_where(is_over: impl Fn(IpNet) -> bool) {
    if let Err(error) = try_remove(is_over).await {
        warn!(%error, "cannot remove the local routes of the ranges");
    }
}

async fn try_remove(is_over: impl Fn(IpNet) -> bool) -> io::Result<()> {
    let mut netlink = Netlink::new()?;
    let ours: Vec<IpNet> = netlink
        .routes()
        .await?
        .into_iter()
        .filter(|route| route.ours)
        .filter_map(|route| route.destination)
        .filter(|net| is_over(*net))
        .collect();
    for net in ours {
        netlink.remove_local_route(net).await?;
        info!(range = %net, "local route removed");
    }
    Ok(())
}

fn check(
    net: IpNet,
    routes: &[Route],
    mut own: impl Iterator<Item = IpAddr>,
) -> Result<(), RouteError> {
    if let Some(address) = own.find(|address| net.contains(address)) {
        return Err(RouteError::OwnAddress(address));
    }
    let overlaps = |other: &IpNet| other.contains(&net) || net.contains(other);
    let in_use = routes
        .iter()
        .filter(|route| !route.ours)
        .filter_map(|route| route.destination)
        .find(overlaps);
    in_use.map_or(Ok(()), |other| Err(RouteError::Routed(other)))
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};

    fn route(to: &str, ours: bool) -> Route {
        Route {
            ours,
            ..testing::route(Some(to), None, 2)
        }
    }

    #[test]
    fn a_range_that_is_used_otherwise_is_left_alone() {
        let net: IpNet = "198.18.0.0/15".parse().unwrap();
        let default = Route {
            destination: None,
            ..route("0.0.0.0/0", false)
        };
        let free = [
            default,
            route("198.20.0.0/16", false),
            route("198.18.0.0/15", true),
        ];
        let own = || ["10.0.0.1".parse().unwrap()].into_iter();
        assert!(check(net, &free, own()).is_ok());
        for taken in ["198.18.7.0/24", "198.0.0.0/8", "198.18.0.0/15"] {
            let error = check(net, &[route(taken, false)], own()).unwrap_err();
            assert!(error.to_string().contains(taken), "{error}");
        }
        let inside = ["198.19.0.1".parse().unwrap()].into_iter();
        assert!(matches!(
            check(net, &free, inside),
            Err(RouteError::OwnAddress(_))
        ));
    }
}
