//! The smallest server behind the redirect: accepts, tells each client where it meant to go, closes.
//!
//! It stands for `culvert server` where a test is about the redirect alone. SIGTERM closes the gate,
//! serves what was accepted before, prints a report (`culvert_tests::report::Accepted`) and ends.

mod accept;
mod services;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsFd as _,
    path::PathBuf,
    process::ExitCode,
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tunnel_user::{
    model::{GatePolicy, Node, NodeName, PortSet, ServiceEndpoints, Snapshot, TunnelPort},
    redirect::{
        Clients, HostRange, Listeners, LocalRanges, LogLevel, NodeMode, Options, Redirect,
        ServiceTable, Sharing, Table,
        addresses::{Surroundings, local_route},
    },
};

#[derive(Parser)]
#[expect(clippy::struct_excessive_bools, reason = "one per command-line switch")]
struct Args {
    /// The cgroup whose connects are captured
    #[arg(long)]
    cgroup: PathBuf,
    /// Where to pin
    #[arg(long)]
    pins: PathBuf,
    /// Where to listen, once for each address family
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// Addresses of nodes
    #[arg(long)]
    node: Vec<IpAddr>,
    /// Further nodes: so many addresses from 10.200.0.0 on
    #[arg(long, default_value_t = 0)]
    nodes: u32,
    /// Ports of these nodes alone
    #[arg(long)]
    extra_port: Vec<u16>,
    /// Addresses of another node, which has no extra ports and the mode that `--node-mode` says
    #[arg(long)]
    other: Vec<IpAddr>,
    /// How the other node stands with the server
    #[arg(long, value_enum, default_value_t = OtherMode::Capture)]
    node_mode: OtherMode,
    /// Tunnelled ports
    #[arg(long, default_values_t = [10250])]
    port: Vec<u16>,
    /// What connects get while the gate is closed
    #[arg(long, value_enum, default_value_t = GatePolicy::Bypass)]
    policy: GatePolicy,
    /// Use no ranges: every original destination is noted under a 4-tuple
    #[arg(long)]
    tuple: bool,
    /// The range of this network namespace
    #[arg(long, default_value_t = HostRange::default())]
    host_range: HostRange,
    /// Capture connects of this network namespace only
    #[arg(long)]
    own_namespace: bool,
    /// Ports that only this network namespace may use
    #[arg(long)]
    own_namespace_port: Vec<u16>,
    /// A Service, and where it leads: CLUSTER=ENDPOINT,...
    #[arg(long, value_parser = services::parse)]
    service: Vec<ServiceEndpoints>,
    /// Clients of the Services keep to one endpoint
    #[arg(long)]
    affinity: bool,
    /// Services that a predecessor left
    #[arg(long, value_enum, default_value_t = Left::Replace)]
    left_services: Left,
    /// Go on changing the Services, and have others come and go that lead there
    #[arg(long, value_name = "ENDPOINT")]
    churn: Option<SocketAddr>,
    /// Sockets with this mark are left alone
    #[arg(long, default_value_t = 0)]
    mark: u32,
    /// Milliseconds without a heartbeat that close the gate
    #[arg(long, default_value_t = 4000)]
    max_age_ms: u64,
    /// Threads that accept
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Never sleep in accept: nothing that a connection needs may come after it
    #[arg(long)]
    spin: bool,
    /// Load the programs that log, and print their lines
    #[arg(long, value_enum)]
    log_level: Option<LogLevel>,
    /// End by itself after this time
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Left {
    /// Only those of `--service` are caught
    Replace,
    /// They are taken over, if they are the predecessor's
    Adopt,
    /// They are not looked at, as by a version that knows of none
    Ignore,
}

#[derive(Clone, Copy, ValueEnum)]
enum OtherMode {
    Capture,
    Bypass,
    Refuse,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acceptor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter("tunnel_user=debug,culvert=debug")
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let stop = CancellationToken::new();
    runtime.spawn(stop_on_sigterm(
        stop.clone(),
        Duration::from_secs(args.seconds),
    ));
    let listeners = args
        .listen
        .iter()
        .map(|address| listen(*address))
        .collect::<Result<Vec<_>>>()?;
    let ranges = runtime.block_on(ranges(args));
    let surroundings = runtime.block_on(Surroundings::read())?;
    let mut redirect = Redirect::install(&options(args, ranges))?;
    if let Some(task) = redirect.take_log_task() {
        runtime.spawn(task.run(stop.clone()));
    }
    redirect.set_surroundings(&surroundings.addresses, &surroundings.uplinks)?;
    let nodes = table(args);
    redirect.apply(&nodes)?;
    let adopts = args.left_services == Left::Adopt && redirect.adopt_services()?;
    if !adopts && args.left_services != Left::Ignore {
        let (services, left_out) = ServiceTable::new(&wanted_services(args), &nodes);
        anyhow::ensure!(left_out.is_empty(), "too many: {left_out:?}");
        redirect.apply_services(&services)?;
    }
    redirect.open_gate(&Listeners {
        v4: family(&listeners, SocketAddr::is_ipv4),
        v6: family(&listeners, SocketAddr::is_ipv6),
    })?;
    redirect.use_ranges()?;
    eprintln!("redirecting");
    let redirect = Mutex::new(redirect);
    let mut accepted = thread::scope(|scope| {
        let churn = args.churn.map(|elsewhere| {
            let (services, nodes, redirect, stop) = (&args.service, &nodes, &redirect, &stop);
            scope.spawn(move || services::churn(services, elsewhere, nodes, redirect, stop))
        });
        let accepted = accept::serve(&listeners, args.threads, args.spin, &redirect, &stop);
        if let Some(churn) = churn {
            let rounds = churn.join().expect("the churn does not panic")?;
            eprintln!("the services changed {rounds} times");
        }
        accepted
    })?;
    let redirect = redirect.into_inner().expect("nobody panicked");
    accepted.pending = redirect.pending()?;
    accepted.counters = redirect
        .counters()
        .named()?
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
    println!("{}", serde_json::to_string(&accepted)?);
    Ok(())
}

async fn stop_on_sigterm(stop: CancellationToken, at_latest: Duration) {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => drop(tokio::time::timeout(at_latest, terminate.recv()).await),
        Err(error) => eprintln!("cannot catch SIGTERM: {error}"),
    }
    stop.cancel();
}

/// The ranges, as far as they can be routed; like a server's.
async fn ranges(args: &Args) -> LocalRanges {
    if args.tuple {
        return LocalRanges::NONE;
    }
    let mut ranges = LocalRanges {
        host: args.host_range.0,
        ..LocalRanges::default()
    };
    if !args.listen.iter().any(SocketAddr::is_ipv6) {
        ranges.v6 = None;
    }
    local_route::add_all(ranges, |net, error| {
        eprintln!("{net} is not routed: {error}");
    })
    .await
}

fn options(args: &Args, ranges: LocalRanges) -> Options {
    Options {
        ranges,
        clients: if args.own_namespace {
            Clients::OwnNamespace
        } else {
            Clients::All
        },
        cgroup: Some(args.cgroup.clone()),
        pin_root: args.pins.clone(),
        // The next one is started beside this one.
        sharing: Sharing::WithPredecessor,
        mark: args.mark,
        heartbeat_max_age: Duration::from_millis(args.max_age_ms),
        log_level: args.log_level,
    }
}

fn table(args: &Args) -> Table {
    let first = u32::from(Ipv4Addr::new(10, 200, 0, 0));
    let many = (0..args.nodes).map(|i| IpAddr::from(Ipv4Addr::from_bits(first + i)));
    let node = |name: &str, addresses: Vec<IpAddr>, extra: &[u16]| Node {
        name: name.parse().expect("a valid name"),
        addresses,
        extra_ports: ports(extra),
        closed_gate: None,
        admits: None,
    };
    let edge = args.node.iter().copied().chain(many).collect();
    let nodes = [
        node("edge", edge, &args.extra_port),
        node("other", args.other.clone(), &[]),
    ];
    let snapshot = Snapshot::new(nodes, ports(&args.port));
    let node_mode = |name: &NodeName| match args.node_mode {
        _ if name.as_str() == "edge" => NodeMode::Capture,
        OtherMode::Capture => NodeMode::Capture,
        OtherMode::Bypass => NodeMode::Bypass,
        OtherMode::Refuse => NodeMode::Refuse,
    };
    let (table, _) = Table::new(&snapshot, &BTreeSet::new(), args.policy, node_mode);
    table.for_own_namespace(args.own_namespace_port.iter().copied())
}

fn wanted_services(args: &Args) -> Vec<ServiceEndpoints> {
    let mut services = args.service.clone();
    for service in &mut services {
        service.affinity = args.affinity;
    }
    services
}

fn ports(numbers: &[u16]) -> PortSet {
    let ports = numbers.iter().filter_map(|port| TunnelPort::new(*port));
    ports.collect()
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // The next server listens beside this one until this one has drained its queue.
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket
        .bind(&address.into())
        .with_context(|| format!("listen on {address}"))?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn family(
    listeners: &[TcpListener],
    wanted: impl Fn(&SocketAddr) -> bool,
) -> Option<std::os::fd::BorrowedFd<'_>> {
    let is_wanted = |listener: &&TcpListener| listener.local_addr().is_ok_and(|a| wanted(&a));
    listeners.iter().find(is_wanted).map(|l| l.as_fd())
}
