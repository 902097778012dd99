//! This machine's own addresses: followed, added, removed.

use std::net::IpAddr;

use culvert_tests::{Lab, NetNs};
use tokio_util::sync::CancellationToken;
use tunnel_user::model::Family;
use tunnel_user::redirect::addresses::{AddressWatch, ServiceAddress, Surroundings};

use super::lab::PATIENCE;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs a future on a runtime inside the namespace.
fn within<T: Send>(namespace: &NetNs, body: impl AsyncFnOnce() -> T + Send) -> T {
    namespace.run(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(body())
    })
}

#[test]
fn own_addresses_are_followed() {
    let lab = Lab::alone().unwrap();
    within(lab.control(), async || {
        let watch = AddressWatch::new().await.unwrap();
        let mut addresses_rx = watch.subscribe();
        let has = |wanted: IpAddr| {
            move |set: &std::sync::Arc<std::collections::BTreeSet<IpAddr>>| set.contains(&wanted)
        };
        for present in ["127.0.0.1", "::1", "10.77.0.1", "fd00:77::1"] {
            assert!(addresses_rx.borrow().contains(&ip(present)), "{present}");
        }
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(watch.run(shutdown.clone()));
        for (address, family) in [("10.77.0.9", ""), ("fd00:77::9", " nodad")] {
            lab.control()
                .ip(&format!("addr add {address} dev lo{family}"))
                .unwrap();
            let seen = addresses_rx.wait_for(has(ip(address)));
            tokio::time::timeout(PATIENCE, seen).await.unwrap().unwrap();
            let prefix = if family.is_empty() { 32 } else { 128 };
            lab.control()
                .ip(&format!("addr del {address}/{prefix} dev lo"))
                .unwrap();
            let gone = addresses_rx.wait_for(|set| !set.contains(&ip(address)));
            tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
        }
        // More changes than the socket's buffer holds.
        let line = |i| format!("addr add 10.76.{}.{} dev lo\n", i / 250, i % 250);
        let many = (0..2000).map(line).collect::<Vec<_>>().concat();
        let script = std::env::temp_dir().join(format!("culvert-addresses-{}", std::process::id()));
        std::fs::write(&script, many).unwrap();
        lab.control()
            .ip(&format!("-batch {}", script.display()))
            .unwrap();
        std::fs::remove_file(&script).unwrap();
        let all = addresses_rx.wait_for(|set| set.len() >= 2004);
        tokio::time::timeout(PATIENCE, all).await.unwrap().unwrap();
        shutdown.cancel();
        task.await.unwrap().unwrap();
    });
}

#[test]
fn a_service_address_comes_and_goes_but_one_that_was_there_stays() {
    let lab = Lab::alone().unwrap();
    within(lab.control(), async || {
        for address in ["169.254.77.1", "fd00:77::53"] {
            let service = ServiceAddress::add(ip(address)).await.unwrap();
            std::net::TcpListener::bind((ip(address), 0)).unwrap();
            service.remove().await.unwrap();
            assert!(std::net::TcpListener::bind((ip(address), 0)).is_err());
        }
        let service = ServiceAddress::add(ip("10.77.0.1")).await.unwrap();
        service.remove().await.unwrap();
        std::net::TcpListener::bind(("10.77.0.1", 0)).unwrap();
    });
}

/// A server that fails to start drops it; one that is killed or hands over does not.
#[test]
fn a_service_address_that_was_not_removed_is_known_to_the_next_server() {
    let lab = Lab::alone().unwrap();
    let there = |address| std::net::TcpListener::bind((ip(address), 0)).is_ok();
    within(lab.control(), async || {
        for address in ["169.254.77.1", "fd00:77::53"] {
            drop(ServiceAddress::add(ip(address)).await.unwrap());
            assert!(!there(address), "dropped");
            ServiceAddress::add(ip(address)).await.unwrap().leave();
            assert!(there(address), "left");
            drop(ServiceAddress::add(ip(address)).await.unwrap());
            assert!(there(address), "it was there before");
            if ip(address).is_ipv6() && !marks_ipv6() {
                continue;
            }
            let left = ServiceAddress::left_behind().await.unwrap();
            let addresses: Vec<IpAddr> = left.iter().map(ServiceAddress::address).collect();
            assert_eq!(addresses, [ip(address)]);
            for service in left {
                service.remove().await.unwrap();
            }
            assert!(!there(address), "adopted and removed");
        }
        assert!(there("10.77.0.1"));
    });
}

/// Whether the kernel remembers who added an IPv6 address: since 5.18.
fn marks_ipv6() -> bool {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok());
    (number(), number()) >= (Some(5), Some(18))
}

#[test]
fn the_redirect_address_is_the_one_others_reach() {
    let lab = Lab::nat().unwrap();
    let surroundings = within(lab.control(), async || Surroundings::read().await.unwrap());
    let picked = Family::ALL.map(|family| {
        let chosen = surroundings.candidates.choose(family, None).unwrap();
        chosen.ip.to_string()
    });
    assert_eq!(picked, ["10.77.0.1", "fd00:77::1"]);
}
