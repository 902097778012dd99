//! Where this server finds its API server: addresses that no node may claim, or it would get what
//! the control plane sends there.
//!
//! A name may lead to others tomorrow. It is resolved anew all the time; what it has led to is kept
//! for a day, for a load balancer's name leads to some of its addresses at a time, and a resolver
//! that fails takes none away.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::lookup_host,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Resolving its name is not worth waiting for longer.
const RESOLVE_TIME: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(30);
/// After this time without being seen an address is somebody else's.
const REMEMBERED: Duration = Duration::from_hours(24);

/// The addresses of an API server; `None` until its name was first looked up.
pub type ApiServerAddresses = watch::Receiver<Option<Arc<BTreeSet<IpAddr>>>>;

/// Follows the addresses of the API server's name.
pub struct ApiServerHost {
    host: String,
    seen: Seen,
    /// this --addresses--> source; `None` until the name was first looked up.
    addresses_tx: watch::Sender<Option<Arc<BTreeSet<IpAddr>>>>,
}

/// Which addresses a name has led to.
#[derive(Debug, Default)]
struct Seen {
    fixed: BTreeSet<IpAddr>,
    resolved: BTreeMap<IpAddr, Instant>,
}

impl ApiServerHost {
    /// That of a URL, and of this pod's environment; asks nobody yet.
    pub(super) fn new(host: &str) -> (Self, ApiServerAddresses) {
        let in_cluster = env::var("KUBERNETES_SERVICE_HOST").ok();
        let host = host.trim_matches(['[', ']']);
        let given = [Some(host), in_cluster.as_deref()];
        let fixed = given
            .into_iter()
            .flatten()
            .filter_map(|host| host.parse().ok());
        let (addresses_tx, addresses) = watch::channel(None);
        let this = Self {
            host: host.to_owned(),
            seen: Seen {
                fixed: fixed.map(|ip: IpAddr| ip.to_canonical()).collect(),
                resolved: BTreeMap::new(),
            },
            addresses_tx,
        };
        (this, addresses)
    }

    /// Follows until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        if self.host.parse::<IpAddr>().is_ok() || self.host.is_empty() {
            self.publish();
            return shutdown.cancelled().await;
        }
        let mut failing = false;
        loop {
            let resolved = tokio::select! {
                resolved = resolve(&self.host) => resolved,
                () = shutdown.cancelled() => return,
            };
            match resolved {
                Ok(addresses) => {
                    self.seen.saw(addresses, Instant::now());
                    failing = false;
                }
                Err(reason) if !failing => {
                    warn!(
                        host = self.host,
                        reason,
                        "cannot resolve the API server's name: the addresses known of it stay its own"
                    );
                    failing = true;
                }
                Err(_) => {}
            }
            self.publish();
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn publish(&self) {
        let addresses = self.seen.addresses();
        self.addresses_tx.send_if_modified(|known| {
            let changed = known.as_deref() != Some(&addresses);
            if changed {
                info!(host = self.host, ?addresses, "the API server's addresses");
                *known = Some(Arc::new(addresses));
            }
            changed
        });
    }
}

impl Seen {
    fn saw(&mut self, addresses: Vec<IpAddr>, now: Instant) {
        let addresses = addresses.into_iter().map(|ip| (ip.to_canonical(), now));
        self.resolved.extend(addresses);
        self.resolved.retain(|_, seen| now < *seen + REMEMBERED);
    }

    fn addresses(&self) -> BTreeSet<IpAddr> {
        let resolved = self.resolved.keys().copied();
        resolved.chain(self.fixed.iter().copied()).collect()
    }
}

async fn resolve(host: &str) -> Result<Vec<IpAddr>, String> {
    match timeout(RESOLVE_TIME, lookup_host((host, 0))).await {
        Ok(Ok(resolved)) => Ok(resolved.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err("it takes too long".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_stays_the_api_servers_for_a_day_after_its_name_led_there() {
        let start = Instant::now();
        let mut seen = Seen {
            fixed: [ip("10.96.0.1")].into(),
            resolved: BTreeMap::new(),
        };
        seen.saw(vec![ip("192.0.2.1"), ip("::ffff:192.0.2.2")], start);
        seen.saw(vec![ip("192.0.2.2")], start + REMEMBERED / 2);
        let all = ["10.96.0.1", "192.0.2.1", "192.0.2.2"].map(ip).into();
        assert_eq!(seen.addresses(), all);
        seen.saw(vec![ip("192.0.2.2")], start + REMEMBERED);
        assert_eq!(seen.addresses(), ["10.96.0.1", "192.0.2.2"].map(ip).into());
    }

    #[tokio::test]
    async fn an_address_needs_no_resolver() {
        for (host, address) in [("192.0.2.7", "192.0.2.7"), ("[fd00::7]", "fd00::7")] {
            let (host, mut addresses) = ApiServerHost::new(host);
            let shutdown = CancellationToken::new();
            let running = tokio::spawn(host.run(shutdown.clone()));
            let known = addresses.wait_for(Option::is_some).await.unwrap().clone();
            assert!(known.unwrap().contains(&ip(address)));
            shutdown.cancel();
            running.await.unwrap();
        }
    }
}
