//! Who holds a port that this process cannot have.
//!
//! The server's ports are above 1024: any user may take them while no server runs. It gets nothing by
//! that but keeps the server from starting, so the error has to say whom to stop.

use std::{fmt, fs, path::Path};

/// A listening socket of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortHolder {
    port: u16,
    user: u32,
    process: Option<Process>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    id: u32,
    name: String,
}

/// The state of a listening socket in `/proc/net/tcp`, see `proc_pid_net(5)`.
const LISTENING: &str = "0A";

impl PortHolder {
    /// Whoever listens on the port, on whatever address; `None` where the kernel does not tell.
    pub(super) fn of(port: u16) -> Option<Self> {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let tables = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
        let mut sockets = tables.iter().flat_map(|table| table.lines());
        let (user, inode) = sockets.find_map(|line| listener(line, port))?;
        let process = process_with(&format!("socket:[{inode}]"));
        Some(Self {
            port,
            user,
            process,
        })
    }
}

/// User and inode, if the line of the table is a socket that listens on the port.
fn listener(line: &str, port: u16) -> Option<(u32, u64)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [_, local, _, LISTENING, _, _, _, user, _, inode, ..] = fields[..] else {
        return None;
    };
    let (_, of) = local.rsplit_once(':')?;
    let is_it = u16::from_str_radix(of, 16).ok()? == port;
    is_it.then_some((user.parse().ok()?, inode.parse().ok()?))
}

/// The process that has this open, as far as we may look.
fn process_with(open: &str) -> Option<Process> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let id = ids.find(|id| has_open(*id, open))?;
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    let name = name.trim().to_owned();
    Some(Process { id, name })
}

fn has_open(id: u32, open: &str) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten();
    let mut links = descriptors
        .flatten()
        .map(|entry| fs::read_link(entry.path()));
    links.any(|link| link.is_ok_and(|link| link == Path::new(open)))
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            port,
            user,
            process,
        } = self;
        match process {
            // A name is what its owner wants it to be.
            Some(Process { id, name }) => {
                write!(
                    f,
                    "process {id} ({name:?}) of user {user} holds port {port}"
                )
            }
            None => write!(f, "a process of user {user} holds port {port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_holder_of_a_port_is_found_by_process_and_user() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = PortHolder::of(port).unwrap();
        let user = rustix::process::geteuid().as_raw();
        assert_eq!(holder.user, user);
        assert_eq!(holder.process.as_ref().unwrap().id, std::process::id());
        let said = holder.to_string();
        assert!(
            said.ends_with(&format!("of user {user} holds port {port}")),
            "{said}"
        );
        drop(listener);
        assert_eq!(PortHolder::of(port), None);
    }

    #[test]
    fn only_listening_sockets_hold_a_port() {
        let line = |state: &str| {
            format!(
                "   0: 0100007F:281E 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 \
                 65534        0 77 1 0000000000000000 100 0 0 10 0"
            )
        };
        assert_eq!(listener(&line("0A"), 10270), Some((65534, 77)));
        assert_eq!(listener(&line("0A"), 10271), None);
        assert_eq!(listener(&line("01"), 10270), None);
        assert_eq!(
            listener("  sl  local_address rem_address   st", 10270),
            None
        );
    }
}
