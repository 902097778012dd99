use super::*;

fn ports(numbers: &[u16]) -> PortSet {
    let ports = numbers
        .iter()
        .map(|number| TunnelPort::new(*number).unwrap());
    ports.collect()
}

/// `edge-1` and `edge-2`; 10.78.0.99 is stated by both, 10266 is on their loopback.
fn snapshot() -> Snapshot {
    let node = |name: &str, addresses: &[&str]| Node {
        name: name.parse().unwrap(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        extra_ports: PortSet::new(),
        closed_gate: None,
        admits: None,
    };
    let nodes = [
        node("edge-1", &["10.78.0.11", "fd00:78::11", "10.78.0.99"]),
        node("edge-2", &["10.78.0.12", "10.78.0.99"]),
        node("edge-3", &[]),
    ];
    let all = ports(&[9100, 9443, 10250, 10255, 10266]);
    Snapshot::new(nodes, all)
        .with_loopback_ports(ports(&[10266]))
        .with_http_ports(ports(&[9100, 10255, 10266]))
        .with_https_ports(ports(&[9443]))
}

fn find(authority: &str, proxy_host: &str, proxy_dest: &str) -> Result<Route, Refusal> {
    find_at(Entry::Http, authority, proxy_host, proxy_dest)
}

fn find_at(
    entry: Entry,
    authority: &str,
    proxy_host: &str,
    proxy_dest: &str,
) -> Result<Route, Refusal> {
    let said = |text| Some(text).filter(|text: &&str| !text.is_empty());
    let asked = Asked {
        authority: said(authority),
        proxy_host: said(proxy_host),
        proxy_dest: said(proxy_dest),
        entry,
    };
    Route::find(asked, &snapshot())
}

#[test]
fn host_and_the_two_headers_lead_to_one_node_and_port() {
    for (host, proxy_host, proxy_dest, node, dst) in [
        // By name, in whatever notation.
        ("edge-1:9100", "", "", "edge-1", "10.78.0.11:9100"),
        ("EDGE-2.:10255", "", "", "edge-2", "10.78.0.12:10255"),
        // By address.
        ("10.78.0.12:9100", "", "", "edge-2", "10.78.0.12:9100"),
        ("[fd00:78::11]:9100", "", "", "edge-1", "[fd00:78::11]:9100"),
        (
            "[::ffff:10.78.0.11]:9100",
            "",
            "",
            "edge-1",
            "10.78.0.11:9100",
        ),
        // The destination wins over the host.
        (
            "10.77.0.1:10264",
            "",
            "10.78.0.12:9100",
            "edge-2",
            "10.78.0.12:9100",
        ),
        (
            "edge-1:10255",
            "",
            "10.78.0.12:9100",
            "edge-2",
            "10.78.0.12:9100",
        ),
        ("", "", "10.78.0.12:9100", "edge-2", "10.78.0.12:9100"),
        (
            "any.svc:10264",
            "",
            "edge-2:9100",
            "edge-2",
            "10.78.0.12:9100",
        ),
        // The header names the agent; its port means nothing.
        ("any.svc:10255", "edge-1", "", "edge-1", "10.78.0.11:10255"),
        (
            "10.77.0.1:10255",
            "edge-1:1",
            "",
            "edge-1",
            "10.78.0.11:10255",
        ),
        ("10.78.0.99:9100", "edge-2", "", "edge-2", "10.78.0.99:9100"),
        (
            "any.svc:10264",
            "edge-1",
            "10.78.0.99:9100",
            "edge-1",
            "10.78.0.99:9100",
        ),
        (
            "any.svc:9100",
            "10.78.0.12",
            "",
            "edge-2",
            "10.78.0.12:9100",
        ),
        // Loopback.
        ("edge-2:10266", "", "", "edge-2", "10.78.0.12:10266"),
        (
            "any.svc:80",
            "edge-2",
            "127.0.0.1:10266",
            "edge-2",
            "10.78.0.12:10266",
        ),
    ] {
        let route = find(host, proxy_host, proxy_dest);
        let asked = format!("{host} {proxy_host} {proxy_dest}");
        let route = route.unwrap_or_else(|refusal| panic!("{asked}: {refusal}"));
        assert_eq!(route.node.as_str(), node, "{asked}");
        assert_eq!(route.dst.to_string(), dst, "{asked}");
        assert_eq!(route.on_loopback, dst.ends_with(":10266"), "{asked}");
    }
}

#[test]
fn the_target_hears_the_host_that_was_asked_for_unless_another_was_chosen() {
    for (host, proxy_dest, heard) in [
        ("Edge-1:9100", "", "Edge-1:9100"),
        ("10.77.0.1:10264", "10.78.0.12:9100", "10.78.0.12:9100"),
        ("edge-1:10266", "", "127.0.0.1:10266"),
        ("[fd00:78::11]:10266", "", "[::1]:10266"),
    ] {
        assert_eq!(find(host, "", proxy_dest).unwrap().host, heard, "{host}");
    }
}

#[test]
fn what_leads_nowhere_says_why() {
    for (host, proxy_host, proxy_dest, code) in [
        ("", "", "", 400),
        ("edge-9:9100", "", "", 404),
        ("10.78.0.77:9100", "", "", 404),
        ("edge-3:9100", "", "", 404),
        ("edge-1:9100", "edge-9", "", 404),
        ("10.78.0.99:9100", "", "", 409),
        // Without a port 80 is meant, and that is not open; nor is what speaks TLS.
        ("edge-1", "", "", 403),
        ("edge-1:9443", "", "", 403),
        ("edge-1:10250", "", "", 403),
        ("edge-1:22", "", "", 403),
        ("edge-1:9100", "", "10.78.0.11", 400),
        // Two nodes at once.
        ("edge-2:9100", "edge-1", "", 400),
        ("10.78.0.12:9100", "edge-1", "", 400),
        ("edge-1:9100", "edge-1", "10.78.0.12:9100", 400),
        ("edge-1:9100", "edge-1", "192.0.2.1:9100", 400),
        ("edge-1:9100", "edge-1", "127.0.0.1:22", 403),
        // No authority.
        ("edge-1:", "", "", 400),
        ("edge-1:0", "", "", 400),
        ("edge-1:+80", "", "", 400),
        ("edge-1:65536", "", "", 400),
        ("edge_1:9100", "", "", 400),
        ("user@edge-1:9100", "", "", 400),
        ("fd00:78::11:9100", "", "", 400),
        ("[fd00:78::11%eth0]:9100", "", "", 400),
        ("[edge-1]:9100", "", "", 400),
        ("edge-1:9100", "a b", "", 400),
        ("127.0.0.1:10266", "", "", 404),
    ] {
        let refusal = find(host, proxy_host, proxy_dest).unwrap_err();
        let asked = format!("{host} {proxy_host} {proxy_dest}: {refusal}");
        assert_eq!(refusal.code().as_u16(), code, "{asked}");
    }
}

#[test]
fn ports_on_the_loopback_are_for_who_may_use_them() {
    let (loopback, other) = (find("edge-1:10266", "", ""), find("edge-1:9100", "", ""));
    let [loopback, other] = [loopback, other].map(Result::unwrap);
    assert!(loopback.clone().allow_loopback(true).is_ok());
    assert_eq!(
        loopback.allow_loopback(false).unwrap_err().code().as_u16(),
        403
    );
    assert!(other.allow_loopback(false).is_ok());
}

#[test]
fn where_tls_ends_no_port_and_the_entrys_own_mean_the_kubelet_and_only_https_is_open() {
    let find =
        |host, proxy_host, proxy_dest| find_at(Entry::Https(10263), host, proxy_host, proxy_dest);
    for (host, proxy_host, proxy_dest, dst) in [
        ("edge-1", "", "", "10.78.0.11:10250"),
        ("edge-1:10250", "", "", "10.78.0.11:10250"),
        ("edge-1:10263", "", "", "10.78.0.11:10250"),
        ("10.78.0.12:9443", "", "", "10.78.0.12:9443"),
        ("tunnel.svc:10263", "edge-2", "", "10.78.0.12:10250"),
        ("tunnel.svc", "", "edge-2:9443", "10.78.0.12:9443"),
    ] {
        let route = find(host, proxy_host, proxy_dest).unwrap();
        assert_eq!(route.dst.to_string(), dst, "{host}");
        assert_eq!(route.is_kubelet, dst.ends_with(":10250"), "{host}");
    }
    for (host, code) in [
        ("edge-1:9100", 403),
        ("edge-1:10255", 403),
        ("edge-1:443", 403),
        ("edge-9", 404),
        ("10.78.0.99", 409),
    ] {
        assert_eq!(
            find(host, "", "").unwrap_err().code().as_u16(),
            code,
            "{host}"
        );
    }
}

#[test]
fn a_pod_is_meant_only_where_no_header_and_no_other_port_says_where() {
    let may = |entry, authority, proxy_host, proxy_dest| {
        let asked = Asked {
            authority,
            proxy_host,
            proxy_dest,
            entry,
        };
        asked.may_mean_a_pod()
    };
    let https = Entry::Https(10263);
    for host in [
        None,
        Some("tunnel.svc"),
        Some("tunnel.svc:10263"),
        Some("10.77.0.1:10250"),
        Some("[fd00::1]"),
        Some("[fd00::1]:10263"),
    ] {
        assert!(may(https, host, None, None), "{host:?}");
        assert!(!may(https, host, Some("edge-1"), None), "{host:?}");
        assert!(!may(https, host, None, Some("edge-1:9443")), "{host:?}");
        assert!(!may(Entry::Http, host, None, None), "{host:?}");
    }
    for host in [
        "tunnel.svc:9443",
        "tunnel.svc:",
        "[fd00::1]:9443",
        "fd00::1",
    ] {
        assert!(!may(https, Some(host), None, None), "{host}");
    }
}
