//! konnectivity's server and agent on the same networks, with the same link between them.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Result;
use culvert_tests::{Daemon, Lab, Launch, credential, lab::CONTROL, programs, unique, until};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use tempfile::TempDir;

use crate::deployment::{ECHO, LINK_PORT, NODE_ADDRESS, start_link, targets};

const AGENT_PORT: u16 = 8091;
const PATIENCE: Duration = Duration::from_mins(1);

/// The order of the fields is the order of their end.
pub(crate) struct Konnectivity {
    pub(crate) agent: Daemon,
    pub(crate) server: Daemon,
    _link: Daemon,
    _targets: Vec<Daemon>,
    scratch: TempDir,
    lab: Lab,
}

impl Konnectivity {
    /// Starts both; a connection has gone through when it returns.
    pub(crate) fn over(delay: Duration) -> Result<Self> {
        let lab = Lab::nat()?;
        let scratch = unique::scratch_dir("konnectivity")?;
        let targets = targets(lab.edge(0).namespace())?;
        write_certificates(&scratch)?;
        let server = start_server(&lab, &scratch)?;
        let link = start_link(&lab, delay, AGENT_PORT)?;
        let agent = start_agent(&lab, &scratch)?;
        let all = Self {
            agent,
            server,
            _link: link,
            _targets: targets,
            scratch,
            lab,
        };
        until("a connection through konnectivity", PATIENCE, || {
            let mut client = all.client(&format!("latency {} 1", all.to(ECHO)))?;
            Ok(client.succeed(PATIENCE).ok())
        })?;
        Ok(all)
    }

    /// A port of the edge as a client here says it.
    pub(crate) fn to(&self, port: u16) -> String {
        format!("{NODE_ADDRESS}:{port}@{}", socket(&self.scratch).display())
    }

    pub(crate) fn client(&self, line: &str) -> Result<Daemon> {
        Launch::new(self.lab.control(), std::env::current_exe()?)
            .arg("client")
            .words(line)
            .start()
    }
}

fn socket(scratch: &TempDir) -> PathBuf {
    scratch.path().join("konnectivity.sock")
}

fn start_server(lab: &Lab, scratch: &TempDir) -> Result<Daemon> {
    let program = programs::of_module("konnectivity", "server")?;
    let (files, socket) = (scratch.path().display(), socket(scratch));
    let server = Launch::new(lab.control(), program)
        .words("--v=0 --mode=http-connect --server-port=0")
        .words(&format!(
            "--agent-port {AGENT_PORT} --uds-name {}",
            socket.display()
        ))
        .words(&format!(
            "--cluster-cert {files}/server.crt --cluster-key {files}/server.key"
        ))
        .words(&format!("--cluster-ca-cert {files}/ca.crt"))
        .start()?;
    until("konnectivity's server listens", PATIENCE, || {
        Ok(socket.exists().then_some(()))
    })?;
    Ok(server)
}

fn start_agent(lab: &Lab, scratch: &TempDir) -> Result<Daemon> {
    let program = programs::of_module("konnectivity", "agent")?;
    let (files, server) = (scratch.path().display(), CONTROL[0]);
    Launch::new(lab.edge(0).namespace(), program)
        .words(&format!(
            "--v=0 --proxy-server-host {server} --proxy-server-port {LINK_PORT}"
        ))
        .words(&format!("--ca-cert {files}/ca.crt"))
        .words(&format!(
            "--agent-cert {files}/agent.crt --agent-key {files}/agent.key"
        ))
        .start()
}

fn write_certificates(scratch: &TempDir) -> Result<()> {
    let write = |name: &str, text: &str| fs::write(scratch.path().join(name), text);
    let ca = credential::authority("konnectivity")?;
    write("ca.crt", &ca.pem())?;
    for (name, usage) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("agent", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut params = CertificateParams::new([CONTROL[0].to_string()])?;
        params.extended_key_usages = vec![usage];
        let issued = credential::issue(params, &ca)?;
        write(&format!("{name}.crt"), &issued.certificate)?;
        write(&format!("{name}.key"), &issued.key)?;
    }
    Ok(())
}
