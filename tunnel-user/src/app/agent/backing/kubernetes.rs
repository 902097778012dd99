//! An agent of a Kubernetes cluster.

use anyhow::Context as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Backing, Foundation};
use crate::{
    kubernetes::{
        Access, AgentCredentials, AgentCredentialsOptions, OwnNode, ServerAddresses,
        ServerAddressesOptions,
    },
    model::ServerAddr,
    observability::readiness::Condition,
};

pub(super) async fn establish(mut foundation: Foundation<'_>) -> anyhow::Result<Backing> {
    let args = foundation.args;
    let access = Access::new(args.cluster.kubeconfig.as_deref()).await?;
    let servers = find_servers(&access, &mut foundation)?;
    let Foundation {
        identity,
        tasks,
        stop,
        end,
        ..
    } = foundation;
    let node = args.node_name()?;
    let given = args.node_ip.iter().copied().collect();
    let (own_node, addresses) = OwnNode::new(access.client.clone(), node.clone(), given);
    tasks.spawn("following this node's Node", own_node.run(end.clone()));
    let options = AgentCredentialsOptions {
        client: access.client,
        cas: access.ca,
        cert_dir: args.cluster.cert_dir(&args.state_dir),
        node,
        addresses,
        life: None,
    };
    let trouble = |reason| identity.not_ready(reason);
    let credentials = AgentCredentials::establish(options, &trouble, stop).await?;
    let backing = Backing {
        identity: credentials.identities(),
        servers,
        tls: credentials.configs(),
        validities: credentials.validities(),
        authority: None,
        server_name: None,
    };
    tasks.spawn("renewing the certificate", credentials.run(end.clone()));
    Ok(backing)
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
