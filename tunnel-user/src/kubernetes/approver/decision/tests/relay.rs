//! Requests for what servers know each other by.

use super::*;
use crate::kubernetes::certificates::kind::RELAY;

const RELAY_USER: &str = "system:serviceaccount:kube-system:culvert-relay";

impl Forge {
    /// The relay's pod on `worker-1` asks.
    fn relay() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = RELAY.subject.to_name();
        params.subject_alt_names = vec![dns("worker-1")];
        Self {
            params,
            signer: RELAY.signer,
            usages: RELAY.usages.to_vec(),
            username: RELAY_USER,
            pod_node: Some(vec!["worker-1"]),
            ..Self::server()
        }
        .with(|forge| forge.life = Some(30 * 86_400))
    }

    fn of_server(self) -> Self {
        self.with(|forge| forge.username = SERVER_USER)
    }
}

#[test]
fn a_server_or_a_relay_gets_it_for_the_machine_it_runs_on() {
    let outside = Forge::relay()
        .of_server()
        .with(|forge| forge.pod_node = None);
    for good in [Forge::relay(), Forge::relay().of_server(), outside] {
        assert_eq!(good.end(), Decision::Approve);
    }
}

#[test]
fn nobody_else_gets_it_and_nobody_for_another_machine() {
    let elsewhere = || Forge::relay().with(|forge| forge.pod_node = Some(vec!["worker-2"]));
    let agent = Forge::relay().with(|forge| forge.username = AGENT_USER);
    let kubelet = Forge::relay().with(|forge| {
        forge.username = "system:node:worker-1";
        forge.groups = vec!["system:nodes"];
        forge.pod_node = None;
    });
    for forged in [elsewhere(), elsewhere().of_server(), agent, kubelet] {
        assert!(matches!(
            forged.end(),
            Decision::Deny(Denial::NotARelay { .. })
        ));
    }
    let unbound = Forge::relay().with(|forge| forge.pod_node = None);
    assert!(matches!(
        unbound.end(),
        Decision::Leave(PendingReason::PodWithoutNode(_))
    ));
}

#[test]
fn it_names_one_machine_and_ends() {
    for (names, denial) in [
        (vec![], Denial::NotOneNode(0)),
        (
            vec![dns("worker-1"), dns("worker-2")],
            Denial::NotOneNode(2),
        ),
        (
            vec![dns("worker-1"), ip("10.0.0.7")],
            Denial::MachineAddress,
        ),
    ] {
        let forged = Forge::relay().names(names);
        assert_eq!(forged.end(), Decision::Deny(denial));
    }
    let endless = Forge::relay().with(|forge| forge.life = None);
    assert!(matches!(endless.end(), Decision::Deny(Denial::Life(_))));
    let agents = Forge::relay().with(|forge| forge.signer = SERVER.signer);
    assert!(
        agents.csr_request().is_none(),
        "at another signer it is nobody's"
    );
}
