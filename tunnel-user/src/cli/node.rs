//! `culvert node list|remove`: the registered nodes of a standalone server.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::bail;
use clap::{ArgAction, Args, Subcommand};
use time::OffsetDateTime;

use super::table::{Table, join, moment};
use crate::{
    model::NodeName,
    standalone::{Registration, State, TokenStatus},
};

/// Registered nodes of a standalone server; run it on the server's machine.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,

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
enum NodeCommand {
    /// Show the registered nodes
    List(ListArgs),
    /// Remove a node: its addresses are no longer captured, and its agent is refused
    Remove(RemoveArgs),
}

#[derive(Args, Clone, Debug)]
struct ListArgs {
    /// Print the list as JSON
    #[arg(long, action = ArgAction::SetTrue)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
struct RemoveArgs {
    /// Name of the node
    name: NodeName,
}

/// Runs the command; results go to stdout, remarks to stderr.
pub fn run(args: &NodeArgs) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc();
    execute(args, now, &mut io::stdout(), &mut io::stderr())
}

fn execute(
    args: &NodeArgs,
    now: OffsetDateTime,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> anyhow::Result<()> {
    let state = State::open(&args.state_dir)?;
    match &args.command {
        NodeCommand::List(list) => {
            let nodes = state.registrations()?;
            if list.json {
                writeln!(out, "{}", serde_json::to_string_pretty(&nodes)?)?;
            } else {
                write!(out, "{}", table(&nodes))?;
            }
        }
        NodeCommand::Remove(RemoveArgs { name }) => {
            if !state.remove_node(name)? {
                bail!("there is no node {name}; `culvert node list` shows those there are");
            }
            writeln!(remarks, "removed node {name}")?;
            for (id, token) in state.tokens()? {
                if token.node == *name && token.status(now) == TokenStatus::Open {
                    writeln!(
                        remarks,
                        "token {id} can still enrol it again; `culvert token revoke {id}` prevents that"
                    )?;
                }
            }
        }
    }
    Ok(())
}

fn table(nodes: &[Registration]) -> Table {
    let mut table = Table::new(["NAME", "ADDRESSES", "GATE POLICY", "ENROLLED", "ENROLMENT"]);
    for node in nodes {
        let policy = node
            .gate_policy
            .and_then(|policy| clap::ValueEnum::to_possible_value(&policy));
        table.row([
            node.name.to_string(),
            join(&node.addresses),
            policy.map_or_else(|| "-".to_owned(), |policy| policy.get_name().to_owned()),
            moment(node.enrolled_at),
            node.enrolment.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests;
