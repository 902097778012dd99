//! Services with nodes among their endpoints, as the command line names them, and changes of them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Mutex,
};

use anyhow::{Context as _, Result};
use rand::{RngExt as _, seq::SliceRandom as _};
use tokio_util::sync::CancellationToken;
use tunnel_user::{
    model::{ServiceEndpoints, ServiceName},
    redirect::{Redirect, ServiceTable, Table},
};

/// `--service 10.96.0.5:443=10.78.0.11:10250,10.77.0.1:9999`.
pub(crate) fn parse(text: &str) -> Result<ServiceEndpoints> {
    let (cluster, endpoints) = text.split_once('=').context("CLUSTER=ENDPOINT,...")?;
    let endpoints = endpoints.split(',').map(str::parse);
    Ok(service(
        cluster.parse()?,
        endpoints.collect::<Result<_, _>>()?,
    ))
}

fn service(cluster: SocketAddr, mut endpoints: Vec<SocketAddr>) -> ServiceEndpoints {
    endpoints.sort();
    ServiceEndpoints {
        cluster,
        service: ServiceName::new("default", "service"),
        affinity: false,
        endpoints,
    }
}

/// Goes on changing them until it is told to stop: each service keeps some of its endpoints, in any order, and others
/// come and go beside them, whose endpoints are `elsewhere`. Returns how often.
pub(crate) fn churn(
    services: &[ServiceEndpoints],
    elsewhere: SocketAddr,
    nodes: &Table,
    redirect: &Mutex<Redirect>,
    stop: &CancellationToken,
) -> Result<u64> {
    let mut random = rand::rng();
    let mut rounds = 0;
    while !stop.is_cancelled() {
        let mut now: Vec<_> = services.to_vec();
        for one in &mut now {
            one.endpoints.shuffle(&mut random);
            let kept = random.random_range(1..=one.endpoints.len());
            one.endpoints.truncate(kept);
            one.endpoints.sort();
        }
        for number in 0..64 {
            if random.random_bool(0.5) {
                let cluster = IpAddr::from(Ipv4Addr::new(10, 97, 0, number));
                let port = services.first().map_or(443, |one| one.cluster.port());
                now.push(service(SocketAddr::new(cluster, port), vec![elsewhere]));
            }
        }
        let (table, _) = ServiceTable::new(&now, nodes);
        let mut redirect = redirect.lock().expect("nobody panicked");
        redirect.apply_services(&table)?;
        rounds += 1;
    }
    Ok(rounds)
}
