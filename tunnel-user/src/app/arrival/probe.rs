//! One probe: an ordinary connect, as any client's, to a target that is captured for it.

use std::{io, net::SocketAddr, time::Duration};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::{io::AsyncReadExt as _, net::TcpSocket, time::timeout};

use crate::model::{ARRIVED, Family};

/// The longest that the kernel may take to connect: long enough for a SYN that was lost once.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest that the server may take to answer. It may have much else to do; should it hang, the
/// heartbeat tells.
const ANSWER: Duration = Duration::from_secs(10);

/// Why a probe did not arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It could not be sent, or its end says nothing: no judgement.
    #[error("not sent")]
    NotSent,
    #[error("no answer to the connect within {CONNECT:?}")]
    TimedOut,
    #[error("the kernel took the connection, but the server did not within {ANSWER:?}")]
    NoAnswer,
    #[error("not redirected")]
    NotRedirected,
    #[error("refused")]
    Refused,
    #[error("reset before an answer")]
    Reset,
    #[error("answered by another program")]
    Foreign,
    #[error("{0}")]
    Other(io::Error),
}

/// Dials the target, and waits for the frontend's answer.
pub(super) async fn send(target: SocketAddr) -> Result<(), Failure> {
    let socket = socket(target).map_err(Failure::of_connect)?;
    let connected = timeout(CONNECT, socket.connect(target)).await;
    let connected = connected.map_err(|_| Failure::TimedOut)?;
    let mut stream = connected.map_err(Failure::of_connect)?;
    let mut heard = [0; ARRIVED.len()];
    let answered = timeout(ANSWER, stream.read_exact(&mut heard)).await;
    answered
        .map_err(|_| Failure::NoAnswer)?
        .map_err(Failure::of_answer)?;
    (heard == ARRIVED).then_some(()).ok_or(Failure::Foreign)
}

fn socket(target: SocketAddr) -> io::Result<TcpSocket> {
    if target.is_ipv4() {
        return TcpSocket::new_v4();
    }
    let socket = TcpSocket::new_v6()?;
    // Where IPv6 has no listener, it is sent to that of IPv4.
    SockRef::from(&socket).set_only_v6(false)?;
    Ok(socket)
}

impl Failure {
    fn of_connect(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            // TCP goes nowhere near the target as it is.
            Some(Errno::NETUNREACH) => Self::NotRedirected,
            Some(Errno::CONNREFUSED) => Self::Refused,
            Some(Errno::CONNRESET) => Self::Reset,
            Some(Errno::TIMEDOUT) => Self::TimedOut,
            // This process, or this machine, is short of something: clients get no time-out of it.
            Some(
                Errno::MFILE
                | Errno::NFILE
                | Errno::NOBUFS
                | Errno::NOMEM
                | Errno::ADDRNOTAVAIL
                | Errno::AGAIN
                | Errno::AFNOSUPPORT,
            ) => Self::NotSent,
            _ => Self::Other(error),
        }
    }

    fn of_answer(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset => Self::Reset,
            io::ErrorKind::UnexpectedEof => Self::Foreign,
            _ => Self::Other(error),
        }
    }

    /// What is wrong with the family's connects, and the way out.
    pub(super) fn reason(&self, family: Family, listener: &str) -> String {
        let port = listener.rsplit(':').next().unwrap_or_default();
        let way_out = match self {
            Self::TimedOut | Self::Other(_) => {
                format!(
                    "does a firewall of this machine drop them? let it accept what comes by lo, and \
                     accept tcp dport {port}"
                )
            }
            Self::Refused => format!(
                "does a firewall of this machine reject them? let it accept what comes by lo, and \
                 accept tcp dport {port}"
            ),
            Self::NotRedirected => {
                "is the server in the cgroup that is captured (--cgroup), and does another program \
                 there override the redirect? see bpftool cgroup tree"
                    .to_owned()
            }
            Self::Reset => {
                "they lose their original destination on the way: does something on this machine \
                 translate their addresses, or is the server outside the cgroup that is captured \
                 (--cgroup)?"
                    .to_owned()
            }
            Self::Foreign => format!("which program takes connections to port {port} here?"),
            Self::NoAnswer | Self::NotSent => "is the machine overloaded?".to_owned(),
        };
        format!(
            "connects to nodes' {family} addresses are captured and do not arrive at {listener} \
             ({self}), so they are treated as while no server listens: {way_out}"
        )
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    /// A probe whose connect is not captured but aims at whoever listens.
    async fn end_at(answer: Option<&'static [u8]>) -> Result<(), Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            match answer {
                Some(answer) => stream.write_all(answer).await.unwrap(),
                None => stream.set_zero_linger().unwrap(),
            }
        });
        let end = send(target).await;
        answering.await.unwrap();
        end
    }

    #[tokio::test]
    async fn only_the_frontends_answer_will_do() {
        end_at(Some(ARRIVED)).await.unwrap();
        let foreign = end_at(Some(b"HTTP/1.1 400 Bad Request")).await;
        assert!(matches!(foreign, Err(Failure::Foreign)), "{foreign:?}");
        let short = end_at(Some(b"")).await;
        assert!(matches!(short, Err(Failure::Foreign)), "{short:?}");
        let reset = end_at(None).await;
        assert!(matches!(reset, Err(Failure::Reset)), "{reset:?}");
    }

    #[test]
    fn reasons_name_listener_cause_and_way_out() {
        let reason = Failure::TimedOut.reason(Family::V4, "10.77.0.1:10270");
        for part in [
            "IPv4",
            "10.77.0.1:10270",
            "within 2s",
            "accept tcp dport 10270",
        ] {
            assert!(reason.contains(part), "{part} is not in {reason}");
        }
        let reason = Failure::NotRedirected.reason(Family::V6, "[fd00::1]:10270");
        assert!(reason.contains("--cgroup"), "{reason}");
    }
}
