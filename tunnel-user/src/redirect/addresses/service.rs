//! A service address: one that this machine has only while a server runs.
//!
//! What we add carries a mark, so that whoever comes after a server that was killed, or handed
//! over, knows it for ours and removes it in the end.

use std::{io, mem, net::IpAddr, thread};

use tracing::{info, warn};

use super::netlink::{LOOPBACK, Netlink};

/// An address that this machine has. It is put on the loopback interface if it has it nowhere yet.
///
/// One that was added is removed again when this is dropped: a server that fails to start leaves
/// nothing behind.
#[derive(Debug)]
#[must_use = "an address that was added is removed when this is dropped"]
pub struct ServiceAddress {
    address: IpAddr,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Not ours to remove.
    Others,
    /// An earlier server added it and left it; or it still runs, and hands over to this one.
    Adopted,
    Added,
}

impl ServiceAddress {
    /// Makes sure that this machine has the address. One that is there already and carries no mark
    /// of ours is left alone, now and at the end.
    ///
    /// # Errors
    /// When the kernel refuses, for want of `CAP_NET_ADMIN` for instance.
    pub async fn add(address: IpAddr) -> io::Result<Self> {
        let mut netlink = Netlink::new()?;
        if let Some(found) = Self::find(&mut netlink, address).await? {
            return Ok(found);
        }
        match netlink.add(address).await {
            Ok(()) => {
                info!(%address, interface = LOOPBACK, "address added");
                let origin = Origin::Added;
                Ok(Self { address, origin })
            }
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let found = Self::find(&mut netlink, address).await?;
                found.ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The addresses that earlier servers added and did not remove.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn left_behind() -> io::Result<Vec<Self>> {
        let all = Netlink::new()?.addresses().await?;
        let ours = all.into_iter().filter(|own| own.ours);
        Ok(ours
            .map(|own| Self {
                address: own.ip,
                origin: Origin::Adopted,
            })
            .collect())
    }

    async fn find(netlink: &mut Netlink, address: IpAddr) -> io::Result<Option<Self>> {
        let all = netlink.addresses().await?;
        let found = all.iter().find(|own| own.ip == address);
        let origin = |ours| {
            if ours {
                Origin::Adopted
            } else {
                Origin::Others
            }
        };
        Ok(found.map(|own| Self {
            address,
            origin: origin(own.ours),
        }))
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether a server put it there.
    pub fn is_ours(&self) -> bool {
        self.origin != Origin::Others
    }

    /// Removes the address, unless it is somebody else's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(mut self) -> io::Result<()> {
        match mem::replace(&mut self.origin, Origin::Others) {
            Origin::Others => Ok(()),
            Origin::Adopted | Origin::Added => remove(self.address).await,
        }
    }

    /// Leaves the address to the server that took over.
    pub fn leave(mut self) {
        self.origin = Origin::Others;
    }
}

impl Drop for ServiceAddress {
    fn drop(&mut self) {
        if self.origin != Origin::Added {
            return;
        }
        let address = self.address;
        // A thread of its own: whoever drops this may be within a runtime already.
        let removed = thread::scope(|scope| scope.spawn(move || remove_now(address)).join());
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(%address, %error, interface = LOOPBACK, "cannot remove the address");
            }
            Err(_) => warn!(%address, interface = LOOPBACK, "removing the address panicked"),
        }
    }
}

fn remove_now(address: IpAddr) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(remove(address))
}

async fn remove(address: IpAddr) -> io::Result<()> {
    match Netlink::new()?.remove(address).await {
        Ok(()) => info!(%address, interface = LOOPBACK, "address removed"),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
