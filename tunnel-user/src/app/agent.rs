//! The agent: wires its parts together and runs them until it is told to stop.

use std::{net::SocketAddr, sync::Arc};

use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use self::{
    platform::{Platform, PlatformContext},
    status::Established,
};
use super::{
    certificates::follow_expiry,
    descriptors, memory_limit,
    signals::{Signals, Stop},
    tasks::Tasks,
};
use crate::{
    observability::{
        admin::{AdminError, AdminServer, OnConflict},
        meta::{BindError, MetaServer},
        metrics::AgentMetrics,
        readiness::{Condition, Readiness},
    },
    settings::AgentArgs,
    tunnel::{
        Memory,
        agent::{LocalAddresses, OwnPorts, Policy, Servers, SessionManager, SessionManagerOptions},
    },
};

mod addresses;
mod platform;
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
    let mut registry = Registry::default();
    let memory = memory_limit::memory(&args.session);
    AgentMetrics::register_memory(&mut registry, {
        let memory = memory.clone();
        Box::new(move || memory.read())
    });
    let metrics = AgentMetrics::register(&mut registry);
    if args.names.yurt_tunnel_metrics {
        metrics.register_yurt_tunnel(&mut registry);
    }
    let agent = Agent {
        metrics,
        readiness: Readiness::default(),
        servers: Servers::default(),
        memory,
        established: Established::default(),
        args,
        stop,
    };
    let end = CancellationToken::new();
    let (mut tasks, mut platform) = (Tasks::default(), Tasks::default());
    let outcome = agent.serve(registry, &mut tasks, &mut platform, &end).await;
    end.cancel();
    tasks.finished().await;
    platform.finished().await;
    outcome
}

/// What the agent's tasks share.
struct Agent {
    args: AgentArgs,
    stop: Stop,
    metrics: AgentMetrics,
    readiness: Readiness,
    servers: Servers,
    memory: Memory,
    established: Established,
}

impl Agent {
    /// Whoever looks learns how it stands from the start: enrolment may take long. The admin socket
    /// also keeps a second agent from spending its token beside this one.
    async fn serve(
        self,
        registry: Registry,
        tasks: &mut Tasks,
        backing_tasks: &mut Tasks,
        end: &CancellationToken,
    ) -> anyhow::Result<()> {
        let identity = self.readiness.register("identity");
        let connected = self.readiness.register("session");
        let admin = self.admin_server().await?;
        let meta = self.meta_server(registry).await?;
        tasks.try_spawn("the admin socket", admin.run(end.clone()));
        tasks.try_spawn("the meta server", meta.run(end.clone()));
        let local = addresses::follow(tasks, end).await;
        let platform = tokio::select! {
            established = self.platform(&identity, local.as_ref(), backing_tasks, end) => established?,
            error = tasks.failed() => return Err(error),
        };
        identity.ready();
        self.established.set(&platform, &self.metrics);
        tasks.spawn("watching certificates", {
            let certificates = self.metrics.certificates.clone();
            follow_expiry(
                "agent",
                platform.validities.clone(),
                certificates,
                end.clone(),
            )
        });
        let manager =
            SessionManager::new(self.manager_options(platform, local), self.servers.clone());
        tasks.spawn("session metrics", {
            status::follow_sessions(self.servers, connected, self.metrics, end.clone())
        });
        tokio::select! {
            kept = manager.run(self.stop.graceful, self.stop.abort) => kept,
            error = tasks.failed() => Err(error),
            error = backing_tasks.failed() => Err(error),
        }
    }

    async fn admin_server(&self) -> Result<AdminServer, AdminError> {
        let report = status::Reporter {
            started_at: OffsetDateTime::now_utc(),
            established: self.established.clone(),
            servers: self.servers.clone(),
            readiness: self.readiness.clone(),
        };
        AdminServer::new(&self.args.run_dir, OnConflict::Respect, report.into_fn()).await
    }

    async fn meta_server(&self, registry: Registry) -> Result<MetaServer, BindError> {
        let address = SocketAddr::new(self.args.meta_address, self.args.meta_port);
        MetaServer::new(address, registry, self.readiness.clone()).await
    }

    async fn platform(
        &self,
        identity: &Condition,
        local: Option<&LocalAddresses>,
        tasks: &mut Tasks,
        end: &CancellationToken,
    ) -> anyhow::Result<Platform> {
        Platform::establish(PlatformContext {
            args: &self.args,
            local,
            readiness: &self.readiness,
            identity,
            tasks,
            stop: &self.stop.graceful,
            end,
        })
        .await
    }

    fn manager_options(
        &self,
        platform: Platform,
        local: Option<LocalAddresses>,
    ) -> SessionManagerOptions {
        let args = &self.args;
        let (own, allowed) = (platform.identity.clone(), args.allow.clone());
        let mut policy = Policy::only(own, allowed);
        if !args.no_default_targets {
            policy = policy.with_own(OwnPorts::new(&args.allow_ports, platform.listed_ports));
        }
        SessionManagerOptions {
            servers: platform.servers,
            most_sessions: args.sessions,
            server_name: platform.server_name,
            tls: platform.tls,
            refused_tx: platform.refused_tx,
            identity: platform.identity,
            settings: args.session.settings(),
            memory: self.memory.clone(),
            policy: Arc::new(policy.with_local(local)),
            mark: args.mark,
            metrics: self.metrics.clone(),
            drain_timeout: args.session.drain_timeout,
        }
    }
}

#[cfg(test)]
mod tests;
