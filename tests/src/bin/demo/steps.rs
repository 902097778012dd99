//! The story: unreachable, then reachable, then unreachable again.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use culvert_tests::site::PATIENCE;
use culvert_tests::{Daemon, Lab, Launch, NetNs, Site, command};

use crate::kubelet::{Kubelet, fingerprint};
use crate::screen;

const NETWORK: &str = "
 pod 10.79.1.2 --.
                 control plane 10.77.0.1 ---- NAT ---- edge-1 10.78.0.11

The edge node reaches the control plane through the NAT. The control plane has no route to the
edge node. Every namespace was made for this demo and none has a way out of this machine.";

pub(crate) fn show() -> Result<()> {
    let started = Instant::now();
    screen::step(
        "A control plane, a pod on it, and an edge node behind a NAT, as network namespaces",
    );
    screen::say(NETWORK);
    let mut lab = Lab::nat()?;
    lab.add_pod()?;
    let site = Site::new(lab)?;
    let lab = site.lab();
    screen::command("control-plane", "ip route");
    screen::output(&lab.control().ip("route")?);

    screen::step("On the edge node, a TLS server that stands for the kubelet");
    let kubelet = Kubelet::start(lab.edge(0), site.directory())?;

    screen::step("Without culvert the control plane cannot reach it");
    screen::say("curl runs in a cgroup of its own, the one that culvert will capture.");
    let client = Client {
        site: &site,
        kubelet: &kubelet,
    };
    client.fails("control-plane", lab.control())?;

    let (mut server, _agent) = start_culvert(&site)?;

    screen::step("The same curl again, same address, nothing configured in curl or in the network");
    client.succeeds("control-plane", lab.control())?;

    screen::step("And from the pod, whose only route leads to the control plane");
    client.succeeds("pod", lab.pod(0).namespace())?;

    screen::step("What the server and the kernel know about it");
    screen::command("control-plane", "culvert status");
    screen::output(&site.status_text()?);
    dump_maps(site.pins())?;

    screen::step(
        "The server is killed (SIGKILL): the kernel notices by itself and captures no longer",
    );
    screen::command("control-plane", "kill -9 $(pidof culvert)");
    server.kill()?;
    client.fails("control-plane", lab.control())?;
    screen::say("The connect went where it would have gone without culvert: nowhere, at once.");

    println!(
        "\nDone in {:.0} s. Namespaces, cgroup, pins and processes are removed.",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn start_culvert(site: &Site) -> Result<(Daemon, Daemon)> {
    screen::step("Culvert's server starts on the control plane");
    screen::command(
        "control-plane",
        "culvert server --redirect-address 10.77.0.1 --redirect-address fd00:77::1",
    );
    let server = site.server().start()?;
    site.wait_for_server()
        .with_context(|| format!("it said:\n{}", server.output()))?;
    screen::output(&server.output());

    screen::step("A token lets the edge node join; its agent dials out through the NAT");
    screen::command(
        "control-plane",
        "culvert token create --node edge-1 --address 10.78.0.11 ...",
    );
    let join = site.token("edge-1", 0)?;
    screen::output(&join);
    screen::command("edge", &join);
    let agent = site.agent(0, &join).start()?;
    site.wait_for_session("edge-1", true)
        .with_context(|| format!("the agent said:\n{}", agent.output()))?;
    screen::output(&agent.output());
    Ok((server, agent))
}

/// A curl that dials the kubelet's own address and trusts the kubelet's own certificate only.
struct Client<'a> {
    site: &'a Site,
    kubelet: &'a Kubelet,
}

impl Client<'_> {
    fn curl(&self, namespace: &NetNs) -> Launch {
        self.site
            .client(namespace, "curl")
            .words("--silent --show-error --max-time 10 --cacert")
            .arg(self.kubelet.certificate())
            .arg(self.url())
    }

    fn url(&self) -> String {
        format!("https://{}:10250/", self.site.lab().edge(0).ipv4())
    }

    fn fails(&self, place: &str, namespace: &NetNs) -> Result<()> {
        screen::command(place, &format!("curl --cacert kubelet.pem {}", self.url()));
        let mut curl = self.curl(namespace).start()?;
        let status = curl.wait(PATIENCE)?;
        screen::output(&curl.output());
        ensure!(
            !status.success(),
            "curl reached the edge node, which it must not"
        );
        Ok(())
    }

    fn succeeds(&self, place: &str, namespace: &NetNs) -> Result<()> {
        screen::command(place, &format!("curl --cacert kubelet.pem {}", self.url()));
        let peer = "\nconnected to %{remote_ip} port %{remote_port}\n%{certs}";
        let mut curl = self.curl(namespace).arg("--write-out").arg(peer).start()?;
        let said = curl.succeed(PATIENCE)?;
        screen::output(&excerpt(&said));
        self.compare_certificates(&said)
    }

    /// The certificate that curl saw must be the edge server's: the TLS session ends there, not in culvert.
    fn compare_certificates(&self, said: &str) -> Result<()> {
        let start = said
            .find("-----BEGIN CERTIFICATE-----")
            .context("curl saw no certificate")?;
        let seen = self.site.directory().join("seen.pem");
        std::fs::write(&seen, &said[start..])?;
        let (seen, own) = (fingerprint(&seen)?, self.kubelet.fingerprint()?);
        screen::say(&format!("the certificate that curl saw: {seen}"));
        screen::say(&format!("the edge server's own:         {own}"));
        ensure!(
            seen == own,
            "somebody stands between curl and the edge server"
        );
        Ok(())
    }
}

/// The page of `openssl s_server -www` is long: what it says about the session, and what curl says about the peer.
fn excerpt(said: &str) -> String {
    let wanted = [
        "Protocol  :",
        "Cipher    :",
        "connected to",
        "Subject:",
        "Issuer:",
    ];
    let chosen = said.lines().filter(|line| {
        wanted
            .iter()
            .any(|part| line.trim_start().starts_with(part))
    });
    chosen.map(str::trim).collect::<Vec<_>>().join("\n")
}

fn dump_maps(pins: &Path) -> Result<()> {
    for map in ["nodes", "ports"] {
        let pinned = find_pin(pins, map).with_context(|| format!("no map {map} is pinned"))?;
        screen::command(
            "control-plane",
            &format!("bpftool map dump pinned .../{map}"),
        );
        let pinned = pinned.to_string_lossy();
        screen::output(&command::run(
            "bpftool",
            ["map", "dump", "pinned", &pinned],
        )?);
    }
    Ok(())
}

fn find_pin(directory: &Path, name: &str) -> Option<std::path::PathBuf> {
    let entries = directory
        .read_dir()
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    entries.into_iter().find_map(|path| {
        let found = path.file_name().is_some_and(|file| file == name);
        if found {
            Some(path)
        } else if path.is_dir() {
            find_pin(&path, name)
        } else {
            None
        }
    })
}
