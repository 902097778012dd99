//! Parts that fail: the API server is away, server and agent crash.

use std::thread;
use std::time::{Duration, Instant};

use culvert_tests::cluster::{API_SERVER, wait_until};
use culvert_tests::{scale, until};

use crate::dials::get;
use crate::pods;
use crate::stage::{PATIENCE, culvert, kill};

const URL: &str = "http://10.78.0.11:10255/healthz";

#[test]
fn without_the_api_server_the_data_plane_goes_on_and_even_a_crashed_server_comes_back() {
    let cluster = culvert();
    get(cluster, URL).unwrap();
    cluster.stop(API_SERVER).unwrap();
    let away = Duration::from_secs(scale::count(60, 5, 5));
    let started = Instant::now();
    while started.elapsed() < away {
        get(cluster, URL).unwrap();
        thread::sleep(Duration::from_millis(200));
    }
    kill(cluster.control_plane(), "culvert");
    kill(cluster.edge(0), "culvert");
    until("both are back without the API server", PATIENCE, || {
        get(cluster, URL).map(Some)
    })
    .unwrap();
    cluster.start_api_server().unwrap();
    cluster.wait_for_culvert().unwrap();
    pods::sleeping(cluster, "afterwards", "edge-1");
    let logs = wait_until("logs", PATIENCE, || {
        cluster.kubectl(["logs", "afterwards"]).map(Some)
    });
    assert!(logs.unwrap().contains("hello"));
    pods::delete(cluster, "afterwards");
    // It asks again every few seconds only, and who comes next wants changes to apply at once.
    wait_until("the cluster is followed again", PATIENCE, || {
        let status = cluster.culvert_status()?;
        Ok(status["cluster"]["trouble"].is_null().then_some(()))
    })
    .unwrap();
}

#[test]
fn a_cut_link_heals() {
    let cluster = culvert();
    get(cluster, URL).unwrap();
    cluster.lab().black_hole(0).unwrap();
    let started = Instant::now();
    while get(cluster, URL).is_ok() {
        assert!(started.elapsed() < PATIENCE, "the link is cut");
    }
    // The other edge is none the worse for it.
    get(cluster, "http://10.78.0.12:10255/healthz").unwrap();
    cluster.lab().restore(0).unwrap();
    until("the node is reached again", PATIENCE, || {
        get(cluster, URL).map(Some)
    })
    .unwrap();
}
