//! An agent of a Kubernetes cluster.

use anyhow::Context as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Platform, PlatformContext};
use crate::{
    kubernetes::{
        Access, AgentCredentials, CertificateNames, CertificateOptions, OwnNode, ServerAddresses,
        ServerAddressesOptions,
        source::{AgentPorts, AgentPortsOptions},
    },
    model::{NodeName, ServerAddr},
    observability::readiness::Condition,
    tunnel::agent::Listed,
};

pub(super) async fn establish(mut context: PlatformContext<'_>) -> anyhow::Result<Platform> {
    let args = context.args;
    let cluster = &args.cluster;
    let (access, files) =
        Access::new(cluster.kubeconfig.as_deref(), cluster.api_server.as_ref()).await?;
    let servers = find_servers(&access, &mut context)?;
    let listed_ports = follow_ports(&access, &mut context)?;
    let node = args.node_name()?;
    let names = own_names(&access, &node, &mut context);
    let PlatformContext {
        identity,
        tasks,
        stop,
        end,
        ..
    } = context;
    let options = CertificateOptions {
        client: access.client,
        cas: access.cas,
        cert_dir: args.cluster.cert_dir(&args.state_dir),
        names,
        life: Some(args.agent_certificate_ttl),
    };
    tasks.spawn("reloading credential files", files.run(end.clone()));
    let trouble = |reason| identity.not_ready(reason);
    let credentials = AgentCredentials::establish(node, options, &trouble, stop).await?;
    let platform = Platform {
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
    Ok(platform)
}

/// The API server says which ports of this node may be dialled, not the servers.
fn follow_ports(access: &Access, context: &mut PlatformContext<'_>) -> anyhow::Result<Listed> {
    let args = context.args;
    let ports_config = args.cluster.ports_config.clone();
    let place = format!("the ConfigMap {ports_config}").into();
    let followed = AgentPorts::new(AgentPortsOptions {
        client: access.client.clone(),
        ports_config,
        state_dir: args.state_dir.clone(),
    })
    .context("cannot keep the listed ports in --state-dir")?;
    let ports = followed.ports();
    context.tasks.spawn("watching the ports ConfigMap", {
        followed.run(context.end.clone())
    });
    Ok(Listed { ports, place })
}

/// What the flag says (in a pod, what the kubelet says of its node), or else the Node.
fn own_names(
    access: &Access,
    node: &NodeName,
    context: &mut PlatformContext<'_>,
) -> watch::Receiver<Option<CertificateNames>> {
    let given = &context.args.node_ip;
    if !given.is_empty() {
        let names = CertificateNames::of_node(node, given.iter().copied());
        return watch::channel(Some(names)).1;
    }
    let (own_node, names) = OwnNode::new(access.client.clone(), node.clone());
    let end = context.end.clone();
    context
        .tasks
        .spawn("watching this node's Node object", own_node.run(end));
    names
}

/// What the flag says, or else the Service.
fn find_servers(
    access: &Access,
    context: &mut PlatformContext<'_>,
) -> anyhow::Result<watch::Receiver<Vec<ServerAddr>>> {
    let args = context.args;
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
    let found = context.readiness.register("servers");
    let end = context.end;
    let tasks = &mut *context.tasks;
    tasks.spawn("watching the server Service", service.run(end.clone()));
    tasks.spawn("watching server discovery", {
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
