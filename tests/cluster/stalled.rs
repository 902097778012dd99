//! Somebody who does not read keeps nobody else waiting.

use std::thread;
use std::time::{Duration, Instant};

use culvert_tests::Daemon;
use culvert_tests::cluster::{Cluster, wait_until};
use rustix::process::Signal;

use crate::pods;
use crate::stage::{PATIENCE, carried_bytes, culvert};

const MIB: u64 = 1024 * 1024;

#[test]
fn logs_are_as_fast_beside_an_exec_that_nobody_reads() {
    const ROUNDS: usize = 5;
    let cluster = culvert();
    pods::sleeping(cluster, "quiet", "edge-1");
    pods::sleeping(cluster, "gushes", "edge-1");
    let (mut without, mut beside) = (Vec::new(), Vec::new());
    // In turns: whatever else this machine does slows both down.
    for _ in 0..ROUNDS {
        time_logs(cluster, &mut without);
        let mut stalled = stalled_exec(cluster);
        time_logs(cluster, &mut beside);
        assert!(stalled.is_running());
        stalled.kill().unwrap();
    }
    let (without, beside) = (median(without), median(beside));
    eprintln!(
        "kubectl logs takes {without:?}, and {beside:?} beside a stalled exec (medians of 50)"
    );
    assert!(
        beside < without.mul_f64(1.2),
        "{beside:?}, but {without:?} without"
    );
    for pod in ["quiet", "gushes"] {
        pods::delete(cluster, pod);
    }
}

fn time_logs(cluster: &Cluster, times: &mut Vec<Duration>) {
    for _ in 0..10 {
        let started = Instant::now();
        let said = cluster.kubectl(["logs", "quiet"]).unwrap();
        times.push(started.elapsed());
        assert!(said.contains("hello"), "{said}");
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// 500 MiB for a kubectl that is stopped once some of it has come.
fn stalled_exec(cluster: &Cluster) -> Daemon {
    let kubectl = cluster.kubectl_launch().unwrap();
    let line = format!(
        "exec {} exec gushes -- dd if=/dev/zero bs=1M count=500 >/dev/null",
        kubectl.to_shell()
    );
    let before = carried_bytes();
    let mut exec = kubectl
        .with_program("sh")
        .arg("-c")
        .arg(line)
        .start()
        .unwrap();
    wait_until("it reads", PATIENCE, || {
        Ok((carried_bytes() > before + MIB).then_some(()))
    })
    .unwrap();
    exec.signal(Signal::STOP).unwrap();
    let mut carried = carried_bytes();
    wait_until("nothing flows any more", PATIENCE, || {
        thread::sleep(Duration::from_millis(200));
        let flowed = carried_bytes() - carried;
        carried += flowed;
        Ok((flowed == 0).then_some(()))
    })
    .unwrap();
    assert!(carried - before < 400 * MIB, "it was read to its end");
    exec
}
