//! An agent of a Kubernetes cluster.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Context as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Backing, Foundation};
use crate::{
    kubernetes::{
        Access, AgentCredentials, AgentCredentialsOptions, OwnNode, ServerAddresses,
        ServerAddressesOptions,
        source::{AgentPorts, AgentPortsOptions},
    },
    model::{NodeName, ServerAddr},
    observability::readiness::Condition,
    tunnel::agent::Listed,
};

pub(super) async fn establish(mut foundation: Foundation<'_>) -> anyhow::Result<Backing> {
    let args = foundation.args;
    let (access, files) = Access::new(args.cluster.kubeconfig.as_deref()).await?;
    let servers = find_servers(&access, &mut foundation)?;
    let listed_ports = follow_ports(&access, &mut foundation)?;
    let node = args.node_name()?;
    let addresses = own_addresses(&access, &node, &mut foundation);
    let Foundation {
        identity,
        tasks,
        stop,
        end,
        ..
    } = foundation;
    let options = AgentCredentialsOptions {
        client: access.client,
        cas: access.cas,
        cert_dir: args.cluster.cert_dir(&args.state_dir),
        node,
        addresses,
        life: Some(args.agent_certificate_ttl),
    };
    tasks.spawn("following the credentials' files", files.run(end.clone()));
    let trouble = |reason| identity.not_ready(reason);
    let credentials = AgentCredentials::establish(options, &trouble, stop).await?;
    let backing = Backing {
        identity: credentials.identities(),
        servers,
        tls: credentials.configs(),
        refused_tx: credentials.refused_tx(),
        validities: credentials.validities(),
        authority: None,
        listed_ports: Some(listed_ports),
        server_name: None,
    };
    tasks.spawn("renewing the certificate", credentials.run(end.clone()));
    Ok(backing)
}

/// The API server says which ports of this node may be dialled, not the servers.
fn follow_ports(access: &Access, foundation: &mut Foundation<'_>) -> anyhow::Result<Listed> {
    let args = foundation.args;
    let ports_config = args.cluster.ports_config.clone();
    let place = format!("the ConfigMap {ports_config}").into();
    let followed = AgentPorts::new(AgentPortsOptions {
        client: access.client.clone(),
        ports_config,
        state_dir: args.state_dir.clone(),
    })
    .context("cannot keep the listed ports in --state-dir")?;
    let ports = followed.ports();
    foundation.tasks.spawn("following the ports' ConfigMap", {
        followed.run(foundation.end.clone())
    });
    Ok(Listed { ports, place })
}

/// What the flag says (in a pod, what the kubelet says of its node), or else the Node.
fn own_addresses(
    access: &Access,
    node: &NodeName,
    foundation: &mut Foundation<'_>,
) -> watch::Receiver<BTreeSet<IpAddr>> {
    let given: BTreeSet<_> = foundation.args.node_ip.iter().copied().collect();
    if !given.is_empty() {
        return watch::channel(given).1;
    }
    let (own_node, addresses) = OwnNode::new(access.client.clone(), node.clone());
    let end = foundation.end.clone();
    foundation
        .tasks
        .spawn("following this node's Node", own_node.run(end));
    addresses
}

/// What the flag says, or else the Service.
fn find_servers(
    access: &Access,
    foundation: &mut Foundation<'_>,
) -> anyhow::Result<watch::Receiver<Vec<ServerAddr>>> {
    let args = foundation.args;
    if !args.server.is_empty() {
        return Ok(watch::channel(args.server.clone()).1);
    }
    let service = ServerAddresses::new(ServerAddressesOptions {
        client: access.client.clone(),
        service: args.cluster.service.clone(),
        state_dir: args.state_dir.clone(),
    })
    .context("cannot keep the servers' addresses in --state-dir")?;
    let (servers, problem) = (service.addresses(), service.problem());
    let found = foundation.readiness.register("servers");
    let end = foundation.end;
    let tasks = &mut *foundation.tasks;
    tasks.spawn("following the servers' Service", service.run(end.clone()));
    tasks.spawn("watching whether servers are known", {
        until_found(problem, found, end.clone())
    });
    Ok(servers)
}

/// Keeps the condition true: there is an address to dial.
async fn until_found(
    mut problem: watch::Receiver<Option<String>>,
    found: Condition,
    end: CancellationToken,
) {
    loop {
        match problem.borrow_and_update().clone() {
            None => found.ready(),
            Some(reason) => found.not_ready(reason),
        }
        tokio::select! {
            changed = problem.changed() => if changed.is_err() {
                return end.cancelled().await;
            },
            () = end.cancelled() => return,
        }
    }
}
