//! A machine that moves to another network: the resolver of the former one answers no longer.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use culvert_tests::scale;

use crate::stage::Stage;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const FORMER: Ipv4Addr = Ipv4Addr::new(127, 0, 53, 1);
const PRESENT: Ipv4Addr = Ipv4Addr::new(127, 0, 53, 2);

/// Answers whoever asks for any name that it is the server's.
struct Resolver {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    fn new(stage: &Stage, address: Ipv4Addr) -> Self {
        let bind = || UdpSocket::bind((address, 53));
        let socket = stage.edge().run(bind).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let ended = Arc::clone(&ended);
            move || {
                let mut query = [0; 512];
                while !ended.load(Ordering::Relaxed) {
                    // Nobody has asked meanwhile, or has gone again.
                    let Ok((length, asking)) = socket.recv_from(&mut query) else {
                        continue;
                    };
                    let _ = socket.send_to(&answer(&query[..length]), asking);
                }
            }
        });
        Self {
            ended,
            thread: Some(thread),
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        thread.join().unwrap();
    }
}

/// To the one question of a query ([RFC 1035](https://www.rfc-editor.org/rfc/rfc1035), section 4.1): the server's
/// address, if it asks for addresses of IPv4, or that there is none.
fn answer(query: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    let name = query[HEADER..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let question = &query[HEADER..HEADER + name + 4];
    let is_ipv4 = question[name..] == [0, 1, 0, 1];
    let mut answer = query[..2].to_vec();
    // A response, recursion available, no error; one question, and as many answers.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
    answer.extend(question);
    if is_ipv4 {
        // The name of the question, an address of the Internet, for a second.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(SERVER.octets());
    }
    answer
}

fn write(file: &Path, resolver: Ipv4Addr) {
    let content = format!("nameserver {resolver}\noptions timeout:1 attempts:1\n");
    fs::write(file, content).unwrap();
}

#[test]
fn an_agent_finds_its_server_by_the_resolver_of_the_network_that_it_has_moved_to() {
    let stage = Stage::new();
    let server = stage.server("");
    let file = stage.path("resolv.conf");
    write(&file, FORMER);
    let former = Resolver::new(&stage, FORMER);
    let join = stage
        .token(0, "")
        .replace("10.77.0.1:10262", "control.example:10262");
    let agent = stage.site.agent(0, &join);
    let own_file = format!(
        "mount --bind {} /etc/resolv.conf && exec {}",
        file.display(),
        agent.to_shell()
    );
    let machine = agent.with_program("unshare");
    let _agent = machine
        .words("--mount sh -c")
        .arg(own_file)
        .start()
        .unwrap();
    stage.until_connected(0, true);

    drop(former);
    drop(server);
    let _server = stage.server("");
    // Nobody resolves the name for a while.
    thread::sleep(scale::patience(Duration::from_secs(3)));
    stage.until_connected(0, false);
    let _present = Resolver::new(&stage, PRESENT);
    write(&file, PRESENT);
    stage.until_connected(0, true);
}
