use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use tokio::sync::watch;

use super::*;
use crate::{
    app::server::https::Shared,
    model::{PortSet, Snapshot, https_listening_port},
};

/// An address of this test's own: others may use the same ports at theirs.
const IP: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

fn port(number: u16) -> TunnelPort {
    TunnelPort::new(number).unwrap()
}

fn snapshot(listed: &[u16]) -> Arc<Snapshot> {
    let listed: PortSet = listed.iter().copied().map(port).collect();
    Arc::new(Snapshot::default().with_https_ports(listed))
}

fn listens(listed: u16) -> bool {
    let at = https_listening_port(port(listed)).number();
    TcpStream::connect(SocketAddr::from((IP, at))).is_ok()
}

#[test]
fn sockets_follow_the_list_and_what_a_predecessor_has_is_taken() {
    let bind = |at: u16| TcpListener::bind((IP, at)).unwrap();
    let kubelets = HttpsSocket(Arc::new(bind(0)));
    // Of a predecessor: one is needed still, one is not.
    let offered = vec![bind(29443), bind(29444)];
    let sockets = HttpsSockets(Arc::new(Shared {
        ip: Some(IP.into()),
        own: PortSet::new(),
        offered: offered.into(),
        listening: watch::Sender::new([(HttpsTarget::Kubelet, kubelets)].into()),
    }));
    let snapshots = watch::Sender::new(snapshot(&[9443, 9100, 19443]));
    let mut listed = ListedPorts::new(sockets.clone(), snapshots.subscribe());
    assert!(listed.open(), "what can be had was had");
    let alike = &listed.told[&port(19443)];
    assert!(alike.contains("29443") && alike.contains("9443"), "{alike}");
    assert!(listens(9443) && listens(9100) && !listens(9444));
    assert_eq!(sockets.ports().len(), 3);

    let taken = bind(29200);
    snapshots.send_replace(snapshot(&[9100, 9200]));
    assert!(!listed.open());
    let in_use = &listed.told[&port(9200)];
    assert!(
        in_use.contains("29200") && in_use.contains("https-proxy-ports"),
        "{in_use}"
    );
    assert!(listens(9100) && !listens(9443));
    drop(taken);
    assert!(listed.open() && listens(9200) && listed.told.is_empty());
}
