//! A service address: one that this machine has only while the server runs.

use std::{io, net::IpAddr};

use tracing::info;

use super::netlink::Netlink;

const LOOPBACK: &str = "lo";

/// An address that this machine has. It is put on the loopback interface if it has it nowhere yet.
#[derive(Debug)]
#[must_use = "an address that was added stays until it is removed"]
pub struct ServiceAddress {
    address: IpAddr,
    added: bool,
}

impl ServiceAddress {
    /// Makes sure that this machine has the address. One that is there already is left alone, now
    /// and at the end.
    ///
    /// # Errors
    /// When the kernel refuses, for want of `CAP_NET_ADMIN` for instance.
    pub async fn add(address: IpAddr) -> io::Result<Self> {
        let mut netlink = Netlink::new()?;
        let present = netlink.addresses().await?;
        let added = present.iter().all(|own| own.ip != address);
        if added {
            let link = netlink.link(LOOPBACK).await?;
            match netlink.add(link, address).await {
                Ok(()) => info!(%address, interface = LOOPBACK, "address added"),
                // Somebody else was quicker.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { address, added })
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Removes the address, if it was added.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(self) -> io::Result<()> {
        if !self.added {
            return Ok(());
        }
        let mut netlink = Netlink::new()?;
        let link = netlink.link(LOOPBACK).await?;
        match netlink.remove(link, self.address).await {
            Ok(()) => info!(address = %self.address, interface = LOOPBACK, "address removed"),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
