//! Dials one target on the node's side.
//!
//! Errors read like those of Go's `net.Dial`: konnectivity's servers and clients look for
//! substrings such as `connection refused` and `i/o timeout` in them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustix::io::Errno;
use tokio::{net::TcpStream, time::timeout};

use super::{Denied, Policy};
use crate::{
    model::{InvalidTarget, Mark, Target, TargetHost},
    observability::metrics::DialFailure,
    outgoing::{self, SegmentSize},
    tunnel::answer::{CONNECT_ERRORS, IO_TIMEOUT, NO_SUCH_HOST},
};

/// Why a target was not dialled, as it reaches the client's side.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error("dial tcp: {0}")]
    Invalid(#[from] InvalidTarget),
    #[error("dial tcp: lookup {name}: {NO_SUCH_HOST}")]
    Unknown { name: String },
    #[error("dial tcp {target}: {denied}")]
    NotAllowed { target: Target, denied: Denied },
    #[error("dial tcp {0}: {IO_TIMEOUT}")]
    TimedOut(Target),
    #[error("dial tcp {target}: connect: {reason}")]
    Failed {
        target: SocketAddr,
        failure: DialFailure,
        reason: String,
    },
}

impl TargetError {
    /// The failure as metrics count it.
    pub(super) fn failure(&self) -> DialFailure {
        match self {
            Self::Invalid(_) => DialFailure::Protocol,
            Self::Unknown { .. } => DialFailure::Unresolved,
            Self::NotAllowed { .. } => DialFailure::Denied,
            Self::TimedOut(_) => DialFailure::TimedOut,
            Self::Failed { failure, .. } => *failure,
        }
    }

    fn connecting(target: SocketAddr, error: &io::Error) -> Self {
        let errno = Errno::from_io_error(error);
        let mut known = CONNECT_ERRORS.iter();
        let (reason, failure) = match known.find(|(known, ..)| Some(*known) == errno) {
            Some((_, words, failure)) => ((*words).to_owned(), *failure),
            None => (error.to_string(), DialFailure::Other),
        };
        Self::Failed {
            target,
            failure,
            reason,
        }
    }
}

/// Connects to the address, as the server wrote it.
pub(super) async fn dial(
    address: &str,
    policy: &Policy,
    mark: Mark,
    allowed: Duration,
) -> Result<TcpStream, TargetError> {
    let target: Target = address.parse()?;
    let connecting = async {
        let mut denied = Denied::Address;
        let mut failed = None;
        for address in resolve(&target).await? {
            match policy.destination(address) {
                Err(why) => denied = why,
                Ok(destination) => {
                    match outgoing::connect(destination, mark, SegmentSize::Full).await {
                        Ok(stream) => return Ok(stream),
                        Err(error) => failed = Some(TargetError::connecting(address, &error)),
                    }
                }
            }
        }
        let target = target.clone();
        Err(failed.unwrap_or(TargetError::NotAllowed { target, denied }))
    };
    let timed_out = |_elapsed| Err(TargetError::TimedOut(target.clone()));
    timeout(allowed, connecting).await.unwrap_or_else(timed_out)
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, TargetError> {
    match &target.host {
        TargetHost::Ip(ip) => Ok(vec![SocketAddr::new(IpAddr::to_canonical(ip), target.port)]),
        TargetHost::Name(name) => {
            let found = tokio::net::lookup_host((name.as_str(), target.port)).await;
            let addresses: Vec<_> = found.into_iter().flatten().collect();
            if addresses.is_empty() {
                return Err(TargetError::Unknown { name: name.clone() });
            }
            Ok(addresses)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::{super::OwnPorts, *};

    const ALLOWED: Duration = Duration::from_secs(5);

    fn mark() -> Mark {
        "1".parse().unwrap()
    }

    async fn error(address: &str) -> String {
        let policy = Policy::new(Vec::new(), Vec::new());
        dial(address, &policy, mark(), ALLOWED)
            .await
            .unwrap_err()
            .to_string()
    }

    #[tokio::test]
    async fn errors_read_like_gos() {
        let free = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        assert_eq!(
            error(&free.to_string()).await,
            format!("dial tcp {free}: connect: connection refused")
        );
        assert!(
            error("192.0.2.1:10250")
                .await
                .contains("not allowed by the agent's policy")
        );
        assert!(error("nonsense").await.contains("not a target"));
    }

    #[test]
    fn the_server_counts_each_failure_as_the_agent_does() {
        let target: Target = "192.0.2.1:10250".parse().unwrap();
        let address: SocketAddr = "192.0.2.1:10250".parse().unwrap();
        let name = "edge-1".to_owned();
        let own = [
            TargetError::Invalid("nonsense".parse::<Target>().unwrap_err()),
            TargetError::Unknown { name },
            TargetError::NotAllowed {
                target: target.clone(),
                denied: Denied::Address,
            },
            TargetError::TimedOut(target),
        ];
        let connecting = CONNECT_ERRORS.map(|(errno, ..)| errno);
        let connecting = connecting.into_iter().chain([Errno::ACCESS]);
        let connecting = connecting.map(|errno| TargetError::connecting(address, &errno.into()));
        for error in own.into_iter().chain(connecting) {
            let answer = error.to_string();
            assert_eq!(
                crate::tunnel::dial_failure(&answer),
                error.failure(),
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn an_own_address_of_a_nat_leads_to_this_machine() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let nat: IpAddr = "192.0.2.1".parse().unwrap();
        let (_local_tx, local) = tokio::sync::watch::channel(std::sync::Arc::default());
        let policy = Policy::new(vec![nat], Vec::new()).with_local(Some(local));
        let address = format!("{nat}:{port}");
        dial(&address, &policy, mark(), ALLOWED).await.unwrap();
        drop(listener);
        // The client's side reads of the target that it asked for.
        let refused = dial(&address, &policy, mark(), ALLOWED).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("dial tcp {address}: connect: connection refused")
        );
    }

    #[tokio::test]
    async fn a_name_is_dialled_where_the_policy_allows_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let policy = Policy::new(Vec::new(), Vec::new());
        dial(&address, &policy, mark(), ALLOWED).await.unwrap();
        let kubelet = policy.with_own(OwnPorts::new(&[], None));
        let refused = dial(&address, &kubelet, mark(), ALLOWED).await.unwrap_err();
        let way_out = format!("--allow-ports {}", listener.local_addr().unwrap().port());
        assert!(refused.to_string().ends_with(&way_out), "{refused}");
        let nothing = Policy::only(Vec::new(), Vec::new());
        let refused = dial(&address, &nothing, mark(), ALLOWED).await.unwrap_err();
        assert!(matches!(refused, TargetError::NotAllowed { .. }));
    }
}
