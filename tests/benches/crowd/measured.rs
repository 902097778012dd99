//! One crowd, measured.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use culvert_tests::crowd::{self, Crowd};

use crate::Args;

/// How soon all have to be back.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(30);
/// What a session may take.
pub(crate) const SESSION_KIB: f64 = 40.0;

/// Longer than the ends of a session take to notice that the other one is gone.
const CUT: Duration = Duration::from_secs(15);
/// Until nothing happens any more.
const REST: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_mins(3);

pub(crate) struct Measured {
    pub(crate) agents: u32,
    pub(crate) empty_kib: f64,
    pub(crate) idle_kib: f64,
    in_the_end_kib: f64,
    pub(crate) idle_cpu_per_minute: f64,
    /// Until all were there for the first time.
    pub(crate) first: Duration,
    pub(crate) quiet: Returns,
    pub(crate) noisy: Returns,
    pub(crate) strangers_per_second: f64,
    pub(crate) strangers_shut_out: u64,
}

/// The time until all were back.
pub(crate) struct Returns {
    pub(crate) kill: Duration,
    pub(crate) cut: Duration,
}

impl Measured {
    pub(crate) fn of(agents: u32, args: &Args) -> Result<Self> {
        let mut crowd = Crowd::new(agents)?;
        crowd.start_server()?;
        let empty_kib = crowd.resident_kib()?;
        let first = timed(&mut crowd, Crowd::start_agents)?;
        sleep(REST);
        let idle_kib = crowd.resident_kib()?;
        let used = crowd.cpu_seconds()?;
        sleep(Duration::from_secs(args.idle));
        let idle_cpu = crowd.cpu_seconds()? - used;
        let quiet = Returns::of(&mut crowd)?;
        let (strangers, since) = (crowd.strangers(args.strangers)?, Instant::now());
        let noisy = Returns::of(&mut crowd)?;
        let (strangers, knocking) = (crowd::end(strangers)?, since.elapsed());
        sleep(REST);
        Ok(Self {
            agents,
            empty_kib,
            idle_kib,
            in_the_end_kib: crowd.resident_kib()?,
            idle_cpu_per_minute: idle_cpu * 60.0 / Duration::from_secs(args.idle).as_secs_f64(),
            first,
            quiet,
            noisy,
            strangers_per_second: tries(&strangers) / knocking.as_secs_f64(),
            strangers_shut_out: strangers.failed + strangers.left_out,
        })
    }

    pub(crate) fn session_kib(&self) -> f64 {
        (self.idle_kib - self.empty_kib) / f64::from(self.agents)
    }

    pub(crate) fn session_kib_in_the_end(&self) -> f64 {
        (self.in_the_end_kib - self.empty_kib) / f64::from(self.agents)
    }

    pub(crate) fn slowest(&self) -> Duration {
        let returns = [&self.quiet, &self.noisy];
        let times = returns.iter().flat_map(|each| [each.kill, each.cut]);
        times.max().unwrap_or_default()
    }
}

impl Returns {
    fn of(crowd: &mut Crowd) -> Result<Self> {
        let kill = timed(crowd, Crowd::restart_server)?;
        // What lasted for less counts as a failed attempt for the agents.
        sleep(CUT);
        crowd.cut()?;
        sleep(CUT);
        let cut = timed(crowd, |crowd| crowd.restore())?;
        sleep(CUT);
        Ok(Self { kill, cut })
    }
}

/// The time until all agents have a session after `cause`.
fn timed(crowd: &mut Crowd, cause: impl FnOnce(&mut Crowd) -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    cause(crowd)?;
    crowd.wait_for_agents(PATIENCE)?;
    let took = began.elapsed();
    eprintln!("  {:.1} s", took.as_secs_f64());
    Ok(took)
}

fn tries(strangers: &culvert_tests::report::Strangers) -> f64 {
    // Fewer than 2^52.
    #[expect(clippy::cast_precision_loss, reason = "a count of some hours at most")]
    let tries = (strangers.knocked + strangers.failed + strangers.left_out) as f64;
    tries
}
