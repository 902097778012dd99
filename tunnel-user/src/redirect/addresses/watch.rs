//! Follows what the kernel says of this machine's network.

use std::{collections::BTreeSet, future::Future, io, net::IpAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::BoxStream};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{netlink::Netlink, uplinks::Surroundings};

/// The kernel is asked again after this time when it has not answered.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What can be read and followed.
pub trait Reading: PartialEq + Send + Sync + Sized + 'static {
    /// Changes of these cause it to be read anew.
    const GROUPS: &'static [MulticastGroup];
    /// At least this long between two readings: routes may change all the time.
    const PAUSE: Duration;

    /// Reads it whole.
    #[doc(hidden)]
    fn read(netlink: &mut Netlink) -> impl Future<Output = io::Result<Self>> + Send;
}

/// Publishes a reading each time it changes.
///
/// What changed is not read from the notifications: each one, and the kernel's word that some were
/// lost, only causes everything to be read anew.
pub struct NetworkWatch<T> {
    netlink: Netlink,
    changes: BoxStream<'static, ()>,
    reading_tx: watch::Sender<Arc<T>>,
}

/// Publishes the set of all addresses of this machine, loopback included.
pub type AddressWatch = NetworkWatch<BTreeSet<IpAddr>>;
/// Publishes addresses and uplinks of this machine.
pub type SurroundingsWatch = NetworkWatch<Surroundings>;

impl Reading for BTreeSet<IpAddr> {
    const GROUPS: &'static [MulticastGroup] =
        &[MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    const PAUSE: Duration = Duration::ZERO;

    async fn read(netlink: &mut Netlink) -> io::Result<Self> {
        let addresses = netlink.addresses().await?;
        Ok(addresses.into_iter().map(|address| address.ip).collect())
    }
}

impl Reading for Surroundings {
    const GROUPS: &'static [MulticastGroup] = &[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    const PAUSE: Duration = Duration::from_millis(250);

    async fn read(netlink: &mut Netlink) -> io::Result<Self> {
        Self::read_by(netlink).await
    }
}

impl<T: Reading> NetworkWatch<T> {
    /// Reads once.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn new() -> io::Result<Self> {
        // Subscribed first, so that no change falls between.
        let changes = notifications(T::GROUPS)?;
        let mut netlink = Netlink::new()?;
        let reading = T::read(&mut netlink).await?;
        Ok(Self {
            netlink,
            changes,
            reading_tx: watch::Sender::new(Arc::new(reading)),
        })
    }

    /// Follows the readings.
    pub fn subscribe(&self) -> watch::Receiver<Arc<T>> {
        self.reading_tx.subscribe()
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
                    "the kernel closed the stream of network changes",
                ));
            }
            let Some(now) = read_again::<T>(&mut self.netlink, &shutdown).await else {
                return Ok(());
            };
            self.reading_tx.send_if_modified(|reading| {
                let differs = **reading != now;
                if differs {
                    debug!("this machine's network changed");
                    *reading = Arc::new(now);
                }
                differs
            });
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = sleep(T::PAUSE) => {}
            }
        }
    }
}

/// Reads until the kernel answers: a dump may fail while what it lists is changing.
async fn read_again<T: Reading>(netlink: &mut Netlink, shutdown: &CancellationToken) -> Option<T> {
    loop {
        let error = match T::read(netlink).await {
            Ok(reading) => return Some(reading),
            Err(error) => error,
        };
        warn!(%error, "cannot read this machine's network, what was read last stays in force");
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = sleep(TRY_AGAIN) => {}
        }
        if let Ok(anew) = Netlink::new() {
            *netlink = anew;
        }
    }
}

/// An item for each notification; ends with the socket.
fn notifications(groups: &[MulticastGroup]) -> io::Result<BoxStream<'static, ()>> {
    let (connection, handle, messages) = new_multicast_connection(groups)?;
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
