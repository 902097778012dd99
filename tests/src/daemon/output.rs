//! Collects a child's two streams line by line, and lets a test wait for a line. Each stream has a reader of its own:
//! of what a child says on both at once, only the order within a stream is certain.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::unique;

/// What a child has said. `CULVERT_TEST_LOGS=<directory>` keeps a copy in a file.
#[derive(Debug)]
pub(crate) struct Output {
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<(Stream, String)>,
    closed: usize,
    copy: Option<File>,
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Error,
}

const STREAMS: usize = 2;
/// A pipe of an ended child that says nothing for this long is somebody else's.
const SILENCE: Duration = Duration::from_secs(1);

impl Output {
    pub(crate) fn capture(name: &str, child: &mut Child) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().copy = copy_to(name)?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let readers = vec![
            follow(Stream::Out, stdout, shared.clone()),
            follow(Stream::Error, stderr, shared.clone()),
        ];
        Ok(Self { shared, readers })
    }

    /// What was said on both streams, or on `only` one.
    pub(crate) fn text(&self, only: Option<Stream>) -> String {
        let state = self.shared.lock();
        let wanted = |stream: Stream| only.is_none_or(|only| only == stream);
        let lines = state.lines.iter().filter(|(stream, _)| wanted(*stream));
        lines.flat_map(|(_, line)| [line.as_str(), "\n"]).collect()
    }

    pub(crate) fn forget(&mut self) {
        self.shared.lock().lines.clear();
    }

    pub(crate) fn wait_for(
        &self,
        patience: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        let mut seen = 0;
        loop {
            // Each line is asked once: a program of many lines would be read slower with each.
            let mut lines = state.lines.iter().skip(seen).map(|(_, line)| line);
            if let Some(line) = lines.find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            seen = state.lines.len();
            if state.closed == STREAMS {
                bail!("its output has ended");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no such line");
            }
            (state, _) = self.shared.next(state, left);
        }
    }

    /// Takes in what the ended child left in its pipes, however long that takes. A grandchild that kept a pipe open and
    /// says nothing is not waited for.
    pub(crate) fn finish(&mut self) {
        let mut state = self.shared.lock();
        let mut silent = false;
        while state.closed < STREAMS && !silent {
            (state, silent) = self.shared.next(state, SILENCE);
        }
        drop(state);
        for reader in self.readers.drain(..).filter(JoinHandle::is_finished) {
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the readers go on until one has read something; true if none did within `patience`.
    fn next<'a>(
        &self,
        state: MutexGuard<'a, State>,
        patience: Duration,
    ) -> (MutexGuard<'a, State>, bool) {
        let woken = self.changed.wait_timeout(state, patience);
        let (state, elapsed) = woken.unwrap_or_else(PoisonError::into_inner);
        (state, elapsed.timed_out())
    }
}

fn follow(stream: Stream, pipe: impl Read + Send + 'static, shared: Arc<Shared>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe)
            .split(b'\n')
            .map_while(std::io::Result::ok)
        {
            let line = String::from_utf8_lossy(&line).into_owned();
            let mut state = shared.lock();
            if let Some(copy) = &mut state.copy {
                // The copy is a convenience: a full disk must not change what a test sees.
                let _ = writeln!(copy, "{line}");
            }
            state.lines.push((stream, line));
            shared.changed.notify_all();
        }
        shared.lock().closed += 1;
        shared.changed.notify_all();
    })
}

fn copy_to(name: &str) -> Result<Option<File>> {
    let directory = std::env::var_os("CULVERT_TEST_LOGS");
    let Some(directory) = directory.filter(|directory| !directory.is_empty()) else {
        return Ok(None);
    };
    let path = std::path::Path::new(&directory).join(unique::name(name));
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    Ok(Some(file))
}
