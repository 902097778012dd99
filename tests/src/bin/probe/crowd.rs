//! `probe crowd`: thousands of agents in one process. What each of them does is what `culvert agent` does:
//! the same session manager, with a certificate of its own.
//!
//! `--register` writes the nodes into a standalone server's state directory, as enrolments would have done; without
//! it the agents of those nodes run, until somebody ends this process.

mod agent;
mod registration;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use culvert_tests::report::Crowd;
use tokio::task::JoinSet;
use tunnel_user::standalone::State;

use self::agent::{Agents, Member};

/// How often the figures are looked at; they are printed when they differ.
const LOOK: Duration = Duration::from_millis(20);

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The server's state directory
    #[arg(long)]
    state_dir: PathBuf,
    /// Register so many nodes, and end
    #[arg(long, value_name = "N", required_unless_present = "server")]
    register: Option<u32>,
    /// Run an agent for each registered node, with this server
    #[arg(long, conflicts_with = "register")]
    server: Option<SocketAddr>,
}

/// Sessions of all agents together.
#[derive(Debug, Default)]
struct Tally {
    up: AtomicU32,
    ever: AtomicU32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match (args.register, args.server) {
        (Some(count), _) => registration::register(&args.state_dir, count),
        (None, Some(server)) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            runtime.block_on(be_a_crowd(args, server))
        }
        (None, None) => unreachable!("clap wants one of the two"),
    }
}

async fn be_a_crowd(args: &Args, server: SocketAddr) -> Result<()> {
    let state = State::open(&args.state_dir)?;
    let agents = Agents::new(&state, server)?;
    let members = state.registrations()?;
    let members = members.iter().map(|node| agents.member(node));
    let members = members.collect::<Result<Vec<Member>>>()?;
    let tally = Arc::new(Tally::default());
    let mut running = JoinSet::new();
    for member in members {
        running.spawn(member.run(Arc::clone(&tally)));
    }
    tokio::select! {
        never = tally.tell() => never,
        ended = running.join_next() => ended.context("there are no nodes")??,
    }
}

impl Tally {
    /// One line whenever the figures have changed.
    async fn tell(&self) -> Result<()> {
        let mut told = Crowd::default();
        loop {
            let now = Crowd {
                up: self.up.load(Ordering::Relaxed),
                ever: self.ever.load(Ordering::Relaxed),
            };
            if now != told {
                crate::report(&now)?;
                told = now;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
