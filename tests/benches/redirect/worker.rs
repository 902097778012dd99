//! Client and server of one case, in one process on one processor: nobody has to be woken for a
//! connect, and what is measured is the kernel's work, not where the scheduler put whom.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::{fd::AsFd as _, unix::net::UnixListener},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;
use culvert_tests::Samples;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    case::{CASES, Case, REDIRECTED_TO},
    original::Original,
    stream,
};

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The case's name
    case: String,
    /// The socket to take requests from
    socket: PathBuf,
    /// The case's cgroup, in which the worker is
    pub(crate) cgroup: PathBuf,
    /// Where to pin
    pub(crate) pins: PathBuf,
}

/// What a worker is asked to measure: one to a line.
#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    /// So many connects, one after the other: the median
    Connects { count: usize },
    /// One transfer to the server
    Bulk { bytes: u64 },
    /// So many round trips of one byte: the mean
    PingPong { count: usize },
}

/// The answer, in nanoseconds.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// What was asked for.
    pub(crate) ns: f64,
    /// After a connect: accept and finding out where the client meant to go.
    pub(crate) accept_ns: f64,
}

/// Said when requests can come.
pub(crate) const READY: &str = "ready";

pub(crate) fn run(args: &Args) -> Result<()> {
    let case = CASES
        .iter()
        .find(|case| case.name == args.case)
        .context("no such case")?;
    stay_on_one_processor()?;
    let mut worker = Worker::new(case, args)?;
    let requests = UnixListener::bind(&args.socket)?;
    println!("{READY}");
    let (mut requests, _) = requests.accept()?;
    for request in BufReader::new(requests.try_clone()?).lines() {
        let measured = worker.measure(&serde_json::from_str(&request?)?)?;
        writeln!(requests, "{}", serde_json::to_string(&measured)?)?;
    }
    Ok(())
}

/// The same one for every worker.
fn stay_on_one_processor() -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
    let mut one = CpuSet::new();
    one.set(first.context("a processor")?);
    sched_setaffinity(None, &one).context("stay on one processor")
}

struct Worker {
    case: &'static Case,
    listener: TcpListener,
    original: Original,
    /// The redirect's own listener where clients do not go through it.
    _other: Option<TcpListener>,
}

impl Worker {
    fn new(case: &'static Case, args: &Args) -> Result<Self> {
        let listener = TcpListener::bind(case.listen)?;
        let other = match case.listen {
            REDIRECTED_TO => None,
            _ => Some(TcpListener::bind(REDIRECTED_TO)?),
        };
        let redirected = other.as_ref().unwrap_or(&listener).as_fd();
        Ok(Self {
            case,
            original: Original::new(case, args, redirected)?,
            listener,
            _other: other,
        })
    }

    fn measure(&mut self, request: &Request) -> Result<Measured> {
        self.original.keep_alive()?;
        match *request {
            Request::Connects { count } => self.connects(count),
            Request::Bulk { bytes } => {
                let (client, server) = self.connection()?;
                stream::transfer(client, server, bytes)
            }
            Request::PingPong { count } => {
                let (client, server) = self.connection()?;
                stream::ping_pong(client, server, count)
            }
        }
    }

    fn connects(&self, count: usize) -> Result<Measured> {
        let (mut connects, mut accepts) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let client = client()?;
            let address = SocketAddr::from(self.case.dial).into();
            let started = Instant::now();
            client.connect(&address)?;
            let connected = Instant::now();
            let original = self.accept()?.1;
            accepts.push(nanoseconds(connected.elapsed()));
            connects.push(nanoseconds(connected - started));
            self.check(original)?;
        }
        Ok(Measured {
            ns: Samples::from_iter(connects).median(),
            accept_ns: Samples::from_iter(accepts).median(),
        })
    }

    /// Both ends of a connection.
    fn connection(&self) -> Result<(TcpStream, TcpStream)> {
        let client = client()?;
        client.connect(&SocketAddr::from(self.case.dial).into())?;
        let (server, original) = self.accept()?;
        self.check(original)?;
        let client = TcpStream::from(client);
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        Ok((client, server))
    }

    fn accept(&self) -> Result<(TcpStream, SocketAddrV4)> {
        let (server, _) = self.listener.accept()?;
        let original = self.original.of(&server)?;
        Ok((server, original))
    }

    /// A case whose rules are not in force must not be measured.
    fn check(&self, original: SocketAddrV4) -> Result<()> {
        let Case { dial, meant, .. } = self.case;
        ensure!(
            original == *meant,
            "dialled {dial}, but {original} was meant"
        );
        Ok(())
    }
}

/// A socket that ends in a reset: nothing of it waits in the kernel while the next are measured.
fn client() -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    Ok(socket)
}

/// As a number to divide.
pub(crate) fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}
