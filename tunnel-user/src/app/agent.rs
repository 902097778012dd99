//! The agent: wires its parts together and runs them until it is told to stop.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{
    descriptors,
    signals::{Signals, Stop},
    tasks::Tasks,
};
use crate::{
    cli::AgentArgs,
    observability::{
        admin::{AdminServer, Incumbent},
        meta::MetaServer,
        metrics::AgentMetrics,
        readiness::Readiness,
    },
    standalone::{AgentCredentials, AgentOptions},
    tunnel::agent::{Keeper, KeeperOptions, Policy, Servers},
};

mod addresses;
mod status;

/// Runs the agent until it is told to stop.
pub async fn run(args: AgentArgs) -> anyhow::Result<()> {
    descriptors::raise_limit();
    let stop = Stop::default();
    let signals = Signals::new()?;
    tokio::select! {
        never = signals.run(stop.clone()) => match never {},
        ended = run_until(args, stop) => ended,
    }
}

async fn run_until(args: AgentArgs, stop: Stop) -> anyhow::Result<()> {
    let started_at = OffsetDateTime::now_utc();
    let mut registry = Registry::default();
    let metrics = AgentMetrics::register(&mut registry);
    let readiness = Readiness::default();
    let connected = readiness.register("session");
    let servers = Servers::default();

    let meta_address = SocketAddr::new(args.meta_address, args.meta_port);
    let meta = MetaServer::new(meta_address, registry, readiness.clone()).await?;
    let credentials =
        AgentCredentials::establish(&identity_options(&args).await?, &stop.graceful).await?;
    let report = status::Reporter {
        started_at,
        identity: credentials.identity().clone(),
        servers: servers.clone(),
        readiness,
        metrics: metrics.clone(),
        validities: credentials.validities(),
    };
    let admin = AdminServer::new(&args.run_dir, Incumbent::Respect, report.into_fn()).await?;
    let keeper = Keeper::new(
        keeper_options(&args, &credentials, &metrics),
        servers.clone(),
    );

    let end = CancellationToken::new();
    let mut tasks = Tasks::default();
    tasks.try_spawn("the meta server", meta.run(end.clone()));
    tasks.try_spawn("the admin socket", admin.run(end.clone()));
    tasks.spawn(
        "watching certificates",
        status::follow_expiry(credentials.validities(), metrics.clone(), end.clone()),
    );
    tasks.spawn(
        "watching sessions",
        status::follow_sessions(servers, connected, metrics, end.clone()),
    );
    tasks.spawn("renewing the certificate", credentials.run(end.clone()));
    let keeping = keeper.run(stop.graceful.clone(), stop.abort.clone());
    let outcome = tokio::select! {
        () = keeping => Ok(()),
        error = tasks.failed() => Err(error),
    };
    end.cancel();
    tasks.finished().await;
    outcome
}

async fn identity_options(args: &AgentArgs) -> anyhow::Result<AgentOptions> {
    let token = args
        .token()?
        .map(|token| token.expose().parse())
        .transpose();
    Ok(AgentOptions {
        state_dir: args.state_dir.clone(),
        node: args.node_name()?,
        servers: args.server.clone(),
        token: token.context("--token is not one that `culvert token create` printed")?,
        pin: args.ca_hash,
        addresses: addresses::of_this_machine(&args.node_ip).await?,
    })
}

fn keeper_options(
    args: &AgentArgs,
    credentials: &AgentCredentials,
    metrics: &AgentMetrics,
) -> KeeperOptions {
    let identity = credentials.identity().clone();
    let policy = if args.no_default_targets {
        Policy::only(args.allow.clone())
    } else {
        Policy::new(identity.addresses.clone(), args.allow.clone())
    };
    let server_name = crate::pki::SERVER_NAME
        .try_into()
        .expect("the constant is a DNS name");
    KeeperOptions {
        servers: args.server.clone(),
        server_name: Some(server_name),
        tls: credentials.configs(),
        identity,
        settings: args.session.settings(),
        policy: Arc::new(policy),
        mark: args.mark,
        metrics: metrics.clone(),
        drain_timeout: args.session.drain_timeout,
    }
}
