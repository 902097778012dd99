//! Bytes that must arrive exactly: copies both ways, and uploads of odd sizes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use culvert_tests::cluster::Cluster;
use culvert_tests::{Launch, scale};
use sha2::{Digest as _, Sha256};

use crate::pods;
use crate::stage::culvert;
use crate::streams::kubectl_over;
use crate::tunnelled::Tunnelled;

const MIB: u64 = 1024 * 1024;
/// A copy on a machine that does much else.
const PATIENCE: Duration = Duration::from_mins(5);

fn succeed(launch: &Launch) -> String {
    launch.start().unwrap().succeed(PATIENCE).unwrap()
}

fn random_file(path: &Path, size: u64) -> String {
    let mut file = File::create(path).unwrap();
    let mut hash = Sha256::new();
    let mut left = size;
    while left > 0 {
        let block: [u8; 4096] = rand::random();
        let block = &block[..block.len().min(usize::try_from(left).unwrap())];
        file.write_all(block).unwrap();
        hash.update(block);
        left -= block.len() as u64;
    }
    hex::encode(hash.finalize())
}

fn hash_of(path: &Path) -> String {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path).unwrap(), &mut hash).unwrap();
    hex::encode(hash.finalize())
}

fn hash_in_pod(cluster: &Cluster, pod: &str, path: &str) -> String {
    let said = cluster.kubectl(["exec", pod, "--", "sha256sum", path]);
    said.unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn a_large_file_is_copied_to_an_edge_pod_and_back() {
    let cluster = culvert();
    pods::sleeping(cluster, "stores", "edge-1");
    let size = scale::count(200, 20, 2) * MIB;
    let (there, back) = (file(cluster, "there"), file(cluster, "back"));
    let sent = random_file(&there, size);
    let tunnelled = Tunnelled::now();
    let copy = cluster.kubectl_launch().unwrap().words("cp --retries=0");
    succeed(&copy.clone().arg(&there).arg("stores:/tmp/file"));
    assert_eq!(hash_in_pod(cluster, "stores", "/tmp/file"), sent);
    succeed(&copy.arg("stores:/tmp/file").arg(&back));
    assert_eq!(hash_of(&back), sent);
    tunnelled.at_least(2 * size);
    for path in [there, back] {
        fs::remove_file(path).unwrap();
    }
    pods::delete(cluster, "stores");
}

#[test]
fn uploads_of_any_size_arrive_exactly() {
    let cluster = culvert();
    pods::sleeping(cluster, "hashes", "edge-2");
    let path = file(cluster, "upload");
    for size in [1, 2, 1023, 16 * 1024, 64 * 1024 + 1, MIB, 8 * MIB] {
        let expected = random_file(&path, size);
        for websockets in ["true", "false"] {
            let kubectl = kubectl_over(cluster, websockets);
            let line = format!(
                "{} exec -i hashes -- sha256sum <{}",
                kubectl.to_shell(),
                path.display()
            );
            let said = succeed(&kubectl.with_program("sh").arg("-c").arg(line));
            let got = said.split(' ').next().unwrap();
            assert_eq!(got, expected, "{size} bytes, WebSocket: {websockets}");
        }
    }
    fs::remove_file(path).unwrap();
    pods::delete(cluster, "hashes");
}

fn file(cluster: &Cluster, name: &str) -> std::path::PathBuf {
    cluster.directory().root().join(name)
}
