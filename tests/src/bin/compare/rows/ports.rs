//! A port more in the ConfigMap.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use culvert_tests::Samples;
use serde_json::json;

use super::Row;
use crate::clients::curl;
use crate::stage::{NODE, Stage};

pub(crate) const EXTRA: Row = Row {
    name: "a port added to the ConfigMap works after",
    meaning: "from the end of `kubectl apply` to the first answer of an HTTP server on that port of the node; the middle one of three ports at different times \
              (the quickest to the slowest).",
    measure: extra,
    always: false,
};

const PORTS: [u16; 3] = [9101, 9102, 9103];
/// Before the second and the third: whoever looks once a minute is met soon after his look, in between, and soon
/// before.
const PHASE: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_mins(2);

fn extra(stage: &Stage) -> Result<String> {
    let cluster = &stage.cluster;
    let serve = PORTS
        .map(|port| format!("httpd -p {port} -h /tmp;"))
        .concat();
    let line = format!("echo there >/tmp/here; {serve} sleep 100000");
    cluster.run_pod("serves", NODE, &line, true)?;
    let seconds = (1..=3).map(|count| {
        thread::sleep(PHASE * (count - 1));
        after_adding(stage, &PORTS[..count as usize])
    });
    let seconds = seconds.collect::<Result<Samples>>();
    cluster.delete_pod("serves")?;
    let seconds = seconds?;
    Ok(format!(
        "{:.2} s ({:.2} to {:.2})",
        seconds.median(),
        seconds.percentile(0),
        seconds.percentile(100)
    ))
}

/// Seconds until the last of these ports answers.
fn after_adding(stage: &Stage, ports: &[u16]) -> Result<f64> {
    let listed: Vec<_> = ports.iter().map(u16::to_string).collect();
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "yurt-tunnel-server-cfg", "namespace": "kube-system" },
        "data": { "http-proxy-ports": listed.join(",") },
    });
    stage.cluster.apply("yurt-tunnel-server-cfg", &config)?;
    let applied = Instant::now();
    let port = listed.last().map_or("", String::as_str);
    let line = format!(
        "--fail --max-time 2 http://{}:{port}/here",
        stage.node_address()
    );
    loop {
        let answer = curl(stage, &line).start()?.succeed(PATIENCE);
        let took = applied.elapsed();
        if answer.is_ok() {
            return Ok(took.as_secs_f64());
        }
        ensure!(took < PATIENCE, "no answer within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
