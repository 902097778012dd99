//! An agent of servers without a cluster.

use tokio::sync::watch;

use super::{Platform, PlatformContext};
use crate::{
    app::agent::addresses,
    pki::{SERVER_NAME, Validity},
    standalone::{AgentCredentials, AgentOptions},
};

pub(super) async fn establish(context: PlatformContext<'_>) -> anyhow::Result<Platform> {
    let PlatformContext {
        args,
        local,
        identity,
        tasks,
        stop,
        end,
        ..
    } = context;
    if args.token_is_public {
        tracing::warn!(
            "--token stands on the command line, where every user of this machine can read it: use \
             --token-file FILE, or --token-file - for standard input",
        );
    }
    let options = AgentOptions {
        state_dir: args.state_dir.clone(),
        node: args.node_name()?,
        servers: args.server.clone(),
        token: args
            .token()
            .map_err(|error| format!("{error:#}"))
            .transpose(),
        pin: args.ca_hash,
        addresses: addresses::proposed(&args.node_ip, local),
        mark: args.mark,
    };
    let trouble = |reason| identity.not_ready(reason);
    let credentials = AgentCredentials::establish(&options, &trouble, stop).await?;
    let server_name = SERVER_NAME.try_into().expect("the constant is a DNS name");
    let platform = Platform {
        identity: credentials.identities(),
        // Flags never change.
        servers: watch::channel(args.server.clone()).1,
        tls: credentials.configs(),
        // Here a refused agent is to enrol anew, which takes a token.
        refused_tx: watch::Sender::new(None),
        validities: credentials.validities(),
        authority: credentials.cas().borrow().first().and_then(Validity::of),
        listed_ports: None,
        server_name: Some(server_name),
    };
    tasks.spawn("renewing the certificate", credentials.run(end.clone()));
    Ok(platform)
}
