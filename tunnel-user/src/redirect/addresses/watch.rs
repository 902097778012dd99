//! Follows this machine's addresses.

use std::{collections::BTreeSet, io, net::IpAddr, sync::Arc};

use futures_util::{StreamExt as _, stream::BoxStream};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::netlink::Netlink;

/// Publishes the set of all addresses of this machine, loopback included, each time it changes.
///
/// What changed is not read from the notifications: each one, and the kernel's word that some were
/// lost, only causes the set to be read anew.
pub struct AddressWatch {
    netlink: Netlink,
    changes: BoxStream<'static, ()>,
    addresses_tx: watch::Sender<Arc<BTreeSet<IpAddr>>>,
}

impl AddressWatch {
    /// Reads the addresses once.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn new() -> io::Result<Self> {
        // Subscribed first, so that no change falls between.
        let changes = notifications()?;
        let mut netlink = Netlink::new()?;
        let addresses = read(&mut netlink).await?;
        Ok(Self {
            netlink,
            changes,
            addresses_tx: watch::Sender::new(Arc::new(addresses)),
        })
    }

    /// Follows the addresses.
    pub fn subscribe(&self) -> watch::Receiver<Arc<BTreeSet<IpAddr>>> {
        self.addresses_tx.subscribe()
    }

    /// Publishes changes until it is told to stop.
    ///
    /// # Errors
    /// When the kernel does not answer any more.
    pub async fn run(mut self, shutdown: CancellationToken) -> io::Result<()> {
        // Many changes come together, when a pod starts for instance: they cause one reading.
        let mut bursts = self.changes.ready_chunks(1024);
        loop {
            let burst = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                burst = bursts.next() => burst,
            };
            if burst.is_none() {
                return Err(io::Error::new(
                    io::ErrorKind::BrokenPipe,
                    "the kernel closed the stream of address changes",
                ));
            }
            let now = read(&mut self.netlink).await?;
            self.addresses_tx.send_if_modified(|addresses| {
                let differs = **addresses != now;
                if differs {
                    debug!(addresses = now.len(), "own addresses changed");
                    *addresses = Arc::new(now);
                }
                differs
            });
        }
    }
}

async fn read(netlink: &mut Netlink) -> io::Result<BTreeSet<IpAddr>> {
    let addresses = netlink.addresses().await?;
    Ok(addresses.into_iter().map(|address| address.ip).collect())
}

/// An item for each notification; ends with the socket.
fn notifications() -> io::Result<BoxStream<'static, ()>> {
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, messages) = new_multicast_connection(&groups)?;
    let messages = messages.map(|_| ());
    // The connection's future moves messages along; polled as a stream beside them, it needs no
    // task of its own. It also ends when nobody could ask it anything, hence the handle.
    let driver = futures_util::stream::once(async move {
        connection.await;
        drop(handle);
    });
    let driver = driver.filter_map(|()| std::future::ready(None));
    Ok(futures_util::stream::select(driver, messages).boxed())
}
