//! Requests for what kubelets know a server by: whoever gets one may do to kubelets what servers may.

use super::*;
use crate::kubernetes::{
    approver::csr_request::WITHOUT_PROXIES,
    certificates::kind::{PROXY, RELAY},
};

impl Forge {
    /// The server's pod on `control-1` asks.
    fn proxy() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = PROXY.subject.to_name();
        params.subject_alt_names = vec![dns("control-1")];
        Self {
            params,
            signer: PROXY.signer,
            usages: PROXY.usages.to_vec(),
            pod_node: Some(vec!["control-1"]),
            life: Some(7 * 86_400),
            ..Self::server()
        }
    }

    fn by(
        username: &'static str,
        groups: Vec<&'static str>,
        pod_node: Option<&'static str>,
    ) -> Self {
        Self {
            username,
            groups,
            pod_node: pod_node.map(|node| vec![node]),
            ..Self::proxy()
        }
    }
}

#[test]
fn a_server_gets_it_for_the_machine_it_runs_on() {
    let outside = Forge::proxy().with(|forge| forge.pod_node = None);
    for good in [Forge::proxy(), outside] {
        assert_eq!(good.end(), Decision::Approve);
    }
}

#[test]
fn neither_a_node_nor_an_agent_nor_a_relay_gets_it_wherever_it_is() {
    const RELAY_USER: &str = "system:serviceaccount:kube-system:culvert-relay";
    for forged in [
        Forge::by("system:node:control-1", vec!["system:nodes"], None),
        Forge::by("system:node:edge-1", vec!["system:nodes"], None),
        Forge::by(AGENT_USER, vec![], Some("control-1")),
        Forge::by(AGENT_USER, vec![], Some("edge-1")),
        Forge::by(AGENT_USER, vec![], None),
        Forge::by(RELAY_USER, vec![], Some("control-1")),
        Forge::by(RELAY_USER, vec![], None),
        Forge::by("tunnel-agent-client", vec!["openyurt:yurttunnel"], None),
        Forge::by("tunnel-proxy-client", vec!["openyurt:yurttunnel"], None),
        Forge::by("kubernetes-admin", vec!["system:masters"], None),
        // A server, for another machine.
        Forge::by(SERVER_USER, vec![], Some("control-2")),
    ] {
        let decided = forged.end();
        assert!(
            matches!(decided, Decision::Deny(Denial::NotAServer { .. })),
            "{decided:?}"
        );
    }
}

#[test]
fn it_cannot_be_had_beside_another_subject_nor_for_more_than_a_machine_and_a_time() {
    let cn = DnType::CommonName;
    let with = |names: &[(DnType, &str)]| {
        let name = subject(names);
        Forge::pod().with(|forge| forge.params.distinguished_name = name)
    };
    // An agent that asks for its own certificate, and for this one in the same request.
    let o = (DnType::OrganizationName, PROXY.subject.organization);
    let only = with(&[o.clone(), (cn.clone(), PROXY.subject.common_name)]);
    assert!(matches!(only.end(), Decision::Deny(_)), "{:?}", only.end());
    let unordered = with(&[(cn, PROXY.subject.common_name), o]);
    assert!(matches!(unordered.end(), Decision::Deny(_)));
    for (names, denial) in [
        (vec![], Denial::NotOneNode(0)),
        (vec![dns("control-1"), dns("edge-1")], Denial::NotOneNode(2)),
        (
            vec![dns("control-1"), ip("10.0.0.7")],
            Denial::MachineAddress,
        ),
    ] {
        assert_eq!(Forge::proxy().names(names).end(), Decision::Deny(denial));
    }
    let endless = Forge::proxy().with(|forge| forge.life = None);
    assert!(matches!(endless.end(), Decision::Deny(Denial::Life(_))));
    let masters = Forge::proxy().with(|forge| {
        forge.params.distinguished_name = subject(&[
            (DnType::OrganizationName, "system:masters"),
            (DnType::CommonName, PROXY.subject.common_name),
        ]);
    });
    assert_eq!(masters.end(), Decision::Deny(Denial::Subject(&PROXY)));
    let yurt_tunnels = Forge::proxy().with(|forge| {
        forge.params.distinguished_name = subject(&[
            (DnType::OrganizationName, "openyurt:yurttunnel"),
            (DnType::CommonName, PROXY.subject.common_name),
        ]);
    });
    assert_eq!(yurt_tunnels.end(), Decision::Deny(Denial::Subject(&PROXY)));
    assert_ne!(PROXY, RELAY);
}

#[test]
fn where_no_tls_ends_it_is_not_touched_for_it_may_be_yurt_tunnels() {
    let asked = Forge::proxy();
    let read = CsrRequest::read(&asked.csr(asked.pem()), WITHOUT_PROXIES);
    assert!(read.is_none());
}
