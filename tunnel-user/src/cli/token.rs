//! `culvert token create|list|revoke`: who may enrol.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::{ArgAction, Args, Subcommand};
use serde::Serialize;
use time::OffsetDateTime;

use super::table::Table;
use crate::{
    model::{AGENT_PORT, GatePolicy, NodeName, ServerAddr},
    redirect::addresses::Surroundings,
    standalone::{NewToken, State, TokenId, TokenRecord, TokenStatus},
};

/// Tokens of a standalone server; run it on the server's machine.
#[derive(Args, Clone, Debug)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,

    /// The standalone server's state directory
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/var/lib/culvert"
    )]
    state_dir: PathBuf,
}

#[derive(Clone, Debug, Subcommand)]
enum TokenCommand {
    /// Make a token for one node and print the command to run there
    Create(CreateArgs),
    /// Show the tokens, without their secrets
    List(ListArgs),
    /// Make a token useless; a node that it enrolled stays enrolled
    Revoke(RevokeArgs),
}

#[derive(Args, Clone, Debug)]
struct CreateArgs {
    /// Node that the token enrols
    #[arg(long, value_name = "NAME")]
    node: NodeName,

    /// Address of the node under which clients dial it (repeatable, or a comma list) [default:
    /// those that its agent claims: trust it with that]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    address: Vec<IpAddr>,

    /// How long the token can be used
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,

    /// Address of this server as the node reaches it, port 10262 unless given [default: this
    /// machine's primary address]
    #[arg(long, value_name = "HOST[:PORT]")]
    server: Option<ServerAddr>,

    /// What connects to this node get while the server is down [default: the server's own policy]
    #[arg(long, value_name = "POLICY")]
    gate_policy: Option<GatePolicy>,
}

#[derive(Args, Clone, Debug)]
struct ListArgs {
    /// Print the list as JSON
    #[arg(long, action = ArgAction::SetTrue)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
struct RevokeArgs {
    /// Id of the token: the part before the dot
    id: TokenId,
}

/// One token as it is listed.
#[derive(Serialize)]
struct Listed {
    id: TokenId,
    status: TokenStatus,
    node: NodeName,
    addresses: Vec<IpAddr>,
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    expires: OffsetDateTime,
}

/// Runs the command; results go to stdout, remarks to stderr.
pub async fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let primary = match &args.command {
        TokenCommand::Create(create) if create.server.is_none() => {
            Surroundings::read().await?.primary()
        }
        _ => None,
    };
    let now = OffsetDateTime::now_utc();
    execute(args, primary, now, &mut io::stdout(), &mut io::stderr())
}

fn execute(
    args: &TokenArgs,
    primary: Option<IpAddr>,
    now: OffsetDateTime,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> anyhow::Result<()> {
    match &args.command {
        TokenCommand::Create(create) => {
            let server = server(create, primary, remarks)?;
            let state = State::create(&args.state_dir, now)?;
            let line = join_command(&state, create, &server, now)?;
            if create.address.is_empty() {
                writeln!(
                    remarks,
                    "warning: the token names no address, so whoever uses it chooses: connects from \
                     this machine to the addresses that it claims, a service's or another machine's \
                     too, will go to that node; --address IP leaves no choice"
                )?;
            }
            writeln!(out, "{line}")?;
        }
        TokenCommand::List(list) => {
            let state = State::open(&args.state_dir)?;
            let tokens = state.tokens()?.into_iter();
            let tokens: Vec<Listed> = tokens.map(|token| listed(token, now)).collect();
            if list.json {
                writeln!(out, "{}", serde_json::to_string_pretty(&tokens)?)?;
            } else {
                write!(out, "{}", table(&tokens))?;
            }
        }
        TokenCommand::Revoke(RevokeArgs { id }) => {
            let revoked = State::open(&args.state_dir)?.revoke_token(id)?;
            writeln!(remarks, "revoked token {id} of node {}", revoked.node)?;
            if revoked.used_by.is_some() {
                writeln!(
                    remarks,
                    "it was used before; `culvert node remove {}` shuts the node out",
                    revoked.node
                )?;
            }
        }
    }
    Ok(())
}

/// The server's address for the join command.
fn server(
    create: &CreateArgs,
    primary: Option<IpAddr>,
    remarks: &mut dyn Write,
) -> anyhow::Result<ServerAddr> {
    if let Some(server) = &create.server {
        return Ok(server.clone());
    }
    let address = primary.context(
        "cannot tell under which address nodes reach this server: name it with --server HOST[:PORT]",
    )?;
    let server = ServerAddr::from((address, AGENT_PORT));
    writeln!(
        remarks,
        "assuming that nodes reach this server at {server}; --server names another address"
    )?;
    Ok(server)
}

fn join_command(
    state: &State,
    create: &CreateArgs,
    server: &ServerAddr,
    now: OffsetDateTime,
) -> anyhow::Result<String> {
    let new = NewToken {
        node: create.node.clone(),
        addresses: create.address.clone(),
        gate_policy: create.gate_policy,
        ttl: create.ttl,
    };
    let (token, record) = state.create_token(new, now)?;
    // Every user of the node can read the arguments of a program, but not what it is given on its
    // standard input.
    Ok(format!(
        "culvert agent --server {server} --node-name {} --ca-hash {} --token-file - <<'END'\n{}\nEND",
        record.node,
        state.ca().pin(),
        token.reveal(),
    ))
}

fn listed((id, token): (TokenId, TokenRecord), now: OffsetDateTime) -> Listed {
    Listed {
        id,
        status: token.status(now),
        node: token.node,
        addresses: token.addresses,
        created: token.created,
        expires: token.expires,
    }
}

fn table(tokens: &[Listed]) -> Table {
    let mut table = Table::new(["ID", "STATUS", "NODE", "ADDRESSES", "EXPIRES"]);
    for token in tokens {
        let addresses = if token.addresses.is_empty() {
            "the agent's".to_owned()
        } else {
            super::table::join(&token.addresses)
        };
        table.row([
            token.id.to_string(),
            token.status.to_string(),
            token.node.to_string(),
            addresses,
            super::table::moment(token.expires),
        ]);
    }
    table
}

#[cfg(test)]
mod tests;
