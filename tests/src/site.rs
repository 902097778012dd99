//! Culvert set up in a lab: where its files are, what captures, and how its programs are started.
//!
//! The one place that knows the flags of `culvert`; tests add to a [`Launch`] what they vary.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::CONTROL;
use crate::{Cgroup, Lab, Launch, NetNs, PinRoot, programs, unique, until};

/// What `culvert token create` printed as one line of words: the token, which stands below the command, is written to
/// a file of `directory`.
pub fn join_command(printed: &str, directory: &Path) -> Result<String> {
    let lines: Vec<_> = printed.lines().collect();
    let start = lines
        .iter()
        .position(|line| line.starts_with("culvert agent "));
    let below = start.and_then(|start| lines.get(start..start + 3));
    let Some(&[command, token, "END"]) = below else {
        bail!("no command for the node in: {printed}");
    };
    let file = directory.join(unique::name("token"));
    fs::write(&file, token).context("write the token")?;
    let from_file = format!("--token-file {}", file.display());
    Ok(command.replace("--token-file - <<'END'", &from_file))
}

/// Long enough for anything that should take no time.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A lab with a server's state directory, a captured cgroup and a pin directory of its own.
#[derive(Debug)]
pub struct Site {
    captured: Cgroup,
    pins: PinRoot,
    directory: TempDir,
    culvert: PathBuf,
    lab: Lab,
}

impl Site {
    /// Prepares everything; starts nothing.
    pub fn new(lab: Lab) -> Result<Self> {
        Ok(Self {
            captured: Cgroup::new("captured")?,
            pins: PinRoot::new()?,
            directory: unique::scratch_dir("site")?,
            culvert: programs::culvert()?,
            lab,
        })
    }

    /// The network it is in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The cgroup whose connects are captured.
    pub fn captured(&self) -> &Cgroup {
        &self.captured
    }

    /// Where the server pins its maps and links.
    pub fn pins(&self) -> &Path {
        self.pins.path()
    }

    /// A directory for files of this site.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The server's state directory.
    pub fn server_state(&self) -> PathBuf {
        self.directory().join("server")
    }

    /// `culvert server` on the control plane, inside the captured cgroup as it is in real life, where that
    /// is the root of all.
    pub fn server(&self) -> Launch {
        self.server_on(&CONTROL)
    }

    /// The same with other addresses for redirected connections.
    pub fn server_on(&self, addresses: &[IpAddr]) -> Launch {
        self.server_of(&self.culvert, addresses)
    }

    /// The server of the version before.
    pub fn previous_server(&self) -> Result<Launch> {
        Ok(self.server_of(&programs::previous_culvert()?, &CONTROL))
    }

    fn server_of(&self, culvert: &Path, addresses: &[IpAddr]) -> Launch {
        let mut server = self
            .client(self.lab.control(), culvert)
            .arg("server")
            .arg("--state-dir")
            .arg(self.server_state())
            .arg("--run-dir")
            .arg(self.server_run())
            .arg("--cgroup")
            .arg(self.captured.path())
            .arg("--pin-root")
            .arg(self.pins.path());
        for address in addresses {
            server = server.arg("--redirect-address").arg(address.to_string());
        }
        server
    }

    /// `culvert token create` for the edge node of that number: the command to run there.
    pub fn token(&self, node: &str, edge: usize) -> Result<String> {
        self.token_with(node, edge, "")
    }

    /// The same with more flags. The token, which the command takes from its standard input, is in a file instead.
    pub fn token_with(&self, node: &str, edge: usize, flags: &str) -> Result<String> {
        let edge = self.lab.edge(edge);
        let create = self.culvert().words("token create").arg("--node").arg(node);
        let create = create.arg("--address").arg(edge.ipv4().to_string());
        let create = create.arg("--address").arg(edge.ipv6().to_string());
        let create = create.arg("--server").arg(format!("{}:10262", CONTROL[0]));
        let create = create.arg("--state-dir").arg(self.server_state());
        let printed = create.words(flags).start()?.succeed(PATIENCE)?;
        join_command(&printed, self.directory())
    }

    /// The command that [`Self::token`] printed, on the edge node of that number.
    pub fn agent(&self, edge: usize, join: &str) -> Launch {
        self.agent_in(&format!("agent{edge}"), edge, join)
    }

    /// The same with directories of that name: another machine, as far as the agent knows.
    pub fn agent_in(&self, directory: &str, edge: usize, join: &str) -> Launch {
        self.agent_of(&self.culvert, directory, edge, join)
    }

    /// The agent of the version before.
    pub fn previous_agent(&self, edge: usize, join: &str) -> Result<Launch> {
        let culvert = programs::previous_culvert()?;
        Ok(self.agent_of(&culvert, &format!("agent{edge}"), edge, join))
    }

    fn agent_of(&self, culvert: &Path, directory: &str, edge: usize, join: &str) -> Launch {
        let arguments = join.split_whitespace().skip(1);
        let directory = self.directory().join(directory);
        Launch::new(self.lab.edge(edge).namespace(), culvert)
            .args(arguments)
            .arg("--state-dir")
            .arg(directory.join("state"))
            .arg("--run-dir")
            .arg(directory.join("run"))
    }

    /// A program whose connects are captured.
    pub fn client(&self, namespace: &NetNs, program: impl AsRef<Path>) -> Launch {
        Launch::new(namespace, program).cgroup(&self.captured)
    }

    /// A `culvert` command that talks to files and sockets in the file system only.
    pub fn culvert(&self) -> Launch {
        Launch::offline(&self.culvert)
    }

    /// `culvert status` of the server, for people.
    pub fn status_text(&self) -> Result<String> {
        let status = self
            .culvert()
            .arg("status")
            .arg("--run-dir")
            .arg(self.server_run());
        status.start()?.succeed(PATIENCE)
    }

    /// `culvert status --json` of the server.
    pub fn status(&self) -> Result<Value> {
        let status = self
            .culvert()
            .words("status --json")
            .arg("--run-dir")
            .arg(self.server_run());
        let printed = status.start()?.succeed(PATIENCE)?;
        serde_json::from_str(&printed).with_context(|| format!("not JSON: {printed}"))
    }

    /// Waits until a server answers.
    pub fn wait_for_server(&self) -> Result<()> {
        until("the server answers", PATIENCE, || self.status().map(Some)).map(drop)
    }

    /// Waits until the server has a session with the node, or has none.
    pub fn wait_for_session(&self, node: &str, wanted: bool) -> Result<()> {
        until(
            &format!("a session of {node} is there: {wanted}"),
            PATIENCE,
            || {
                let status = self.status()?;
                let sessions = status["sessions"]
                    .as_array()
                    .context("no sessions in the status")?;
                let there = sessions.iter().any(|session| session["node"] == node);
                Ok((there == wanted).then_some(()))
            },
        )
    }

    /// Where the server's admin socket is.
    pub fn server_run(&self) -> PathBuf {
        self.directory().join("run")
    }
}
