//! An agent that is replaced is back with the next session.

use culvert_tests::cluster::{CULVERT_NAMESPACE, wait_until};

use crate::pods;
use crate::stage::{PATIENCE, culvert};

#[test]
fn a_restarted_agent_is_back_at_once() {
    let cluster = culvert();
    let restart = ["rollout", "restart", "-n", CULVERT_NAMESPACE];
    let words = restart.into_iter().chain(["daemonset/culvert-agent"]);
    cluster.kubectl(words).unwrap();
    cluster.wait_for_culvert().unwrap();
    pods::sleeping(cluster, "later", "edge-1");
    let logs = wait_until("logs", PATIENCE, || {
        cluster.kubectl(["logs", "later"]).map(Some)
    });
    assert!(logs.unwrap().contains("hello"));
    pods::delete(cluster, "later");
}
