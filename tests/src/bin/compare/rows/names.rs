//! Nodes by name, through the internal Service; and who else gets to them there.

use anyhow::{Context as _, Error, Result};
use culvert_tests::Launch;
use culvert_tests::cluster::wait_until;
use serde_json::json;

use super::Row;
use super::callers::seen;
use crate::clients::PATIENCE;
use crate::stage::{NODE, Stage};

pub(crate) const HTTPS: Row = Row {
    name: "`https://edge-1:10250/healthz` by name",
    meaning: "at the ClusterIP of `x-tunnel-server-internal-svc`, to which the node's name leads: with the administrator's \
              certificate, and the answering one verified for the name.",
    measure: https,
    always: false,
};

pub(crate) const HTTP: Row = Row {
    name: "`http://edge-1:9111` by name",
    meaning: "an HTTP server on a port of the ConfigMap, at the same ClusterIP.",
    measure: http,
    always: false,
};

pub(crate) const STRANGER: Row = Row {
    name: "a stranger on the network asks port 10263 for `/pods` of edge-1",
    meaning: "from the router between the networks, without any certificate. 401 is the kubelet's answer to strangers.",
    measure: stranger,
    always: false,
};

const PORT: u16 = 9111;
const SERVICE: &str = "x-tunnel-server-internal-svc";

fn https(stage: &Stage) -> Result<String> {
    let directory = stage.cluster.directory();
    let admin = directory.kubeconfig("admin");
    let curl = by_name(stage, 10250)?
        .words("--verbose --stderr - --cacert")
        .arg(directory.pki().join("ca.crt"))
        .arg("--cert")
        .arg(admin.with_extension("crt"))
        .arg("--key")
        .arg(admin.with_extension("key"))
        .arg(format!("https://{NODE}:10250/healthz"));
    let said = curl
        .start()?
        .succeed(PATIENCE)
        .map_err(|error| refused(&error))?;
    let subject = seen(&said, "subject")?;
    Ok(format!("works, with `{subject}`"))
}

/// What curl says first; a recommendation follows.
fn refused(error: &Error) -> Error {
    let said = format!("{error:#}");
    let why = said.lines().find(|line| line.starts_with("curl: ("));
    Error::msg(why.unwrap_or(&said).to_owned())
}

fn http(stage: &Stage) -> Result<String> {
    let cluster = &stage.cluster;
    let line = format!("echo there >/tmp/here; httpd -p {PORT} -h /tmp; sleep 100000");
    cluster.run_pod("named", NODE, &line, true)?;
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "yurt-tunnel-server-cfg", "namespace": "kube-system" },
        "data": { "http-proxy-ports": PORT.to_string() },
    });
    cluster.apply("yurt-tunnel-server-cfg", &config)?;
    let curl = by_name(stage, PORT)?
        .words("--fail --max-time 2")
        .arg(format!("http://{NODE}:{PORT}/here"));
    let answered = wait_until("an answer", PATIENCE, || {
        let said = curl.start()?.succeed(PATIENCE)?;
        Ok((said.trim() == "there").then_some(()))
    });
    cluster.delete_pod("named")?;
    answered.map(|()| "works".into())
}

fn stranger(stage: &Stage) -> Result<String> {
    let at = stage.cluster.control_plane().addresses()[0];
    let router = stage.cluster.lab().router();
    let curl = Launch::new(router, "curl")
        .words("--silent --show-error --insecure --max-time 20 --output /dev/null")
        .words("--write-out %{http_code}/%{size_download} --connect-to")
        .arg(format!("{NODE}:10250:{at}:10263"))
        .arg(format!("https://{NODE}:10250/pods"));
    super::callers::asked(&curl)
}

/// A curl on the control plane for which the node's name leads where its record does.
fn by_name(stage: &Stage, port: u16) -> Result<Launch> {
    let service = stage
        .cluster
        .get(&format!("-n kube-system service {SERVICE}"))?;
    let ip = service["spec"]["clusterIP"]
        .as_str()
        .context("it has no ClusterIP")?;
    let curl = stage.cluster.control_plane().launch("curl");
    Ok(curl
        .words("--silent --show-error --connect-to")
        .arg(format!("{NODE}:{port}:{ip}:{port}")))
}
