use super::*;
use crate::kubernetes::source::testing::ports;

fn read(data: &[(&str, &str)]) -> Ports {
    let data = data.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    Ports::read(&data.collect(), &ports(&[10270, 10262]))
}

fn messages(ports: &Ports) -> Vec<String> {
    ports.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn every_key_of_yurt_tunnel_is_read_in_its_format() {
    let read = read(&[
        ("dnat-ports-pair", "9100=10264, 9200 = 10263,9201"),
        ("http-proxy-ports", " 9445, 9051 "),
        ("https-proxy-ports", "9443,,"),
        ("localhost-proxy-ports", "10266, 10267"),
    ]);
    assert_eq!(
        read.tunnelled,
        ports(&[9051, 9100, 9200, 9201, 9443, 9445, 10266, 10267])
    );
    assert_eq!(read.loopback, ports(&[10266, 10267]));
    assert_eq!(read.https(), ports(&[9200, 9443]));
    assert_eq!(read.http(), ports(&[9051, 9100, 9201, 9445, 10266, 10267]));
    assert_eq!(messages(&read), [""; 0]);
}

#[test]
fn what_is_spoken_on_a_port_is_the_last_keys_word_and_loopback_ports_say_nothing_of_it() {
    let read = read(&[
        ("dnat-ports-pair", "1=10264, 2=10263, 3, 4=10264, 5=10264"),
        ("http-proxy-ports", "2, 6, 7"),
        ("https-proxy-ports", "4, 7, 8"),
        ("localhost-proxy-ports", "8, 9"),
    ]);
    let schemes: Vec<_> = read
        .schemes
        .iter()
        .map(|(port, scheme)| (port.number(), *scheme))
        .collect();
    let (http, https) = (Scheme::Http, Scheme::Https);
    let expected = [
        (1, http),
        (2, http),
        (3, http),
        (4, https),
        (5, http),
        (6, http),
        (7, https),
        (8, https),
    ];
    assert_eq!(schemes, expected);
    assert_eq!(read.loopback, ports(&[8, 9]));
}

#[test]
fn a_loopback_port_that_is_said_to_speak_tls_speaks_no_http() {
    let read = read(&[
        ("https-proxy-ports", "10266"),
        ("localhost-proxy-ports", "10266, 10267"),
    ]);
    assert_eq!(read.http(), ports(&[10267]));
}

#[test]
fn empty_values_ask_for_nothing() {
    let keys = KEYS.map(|key| (key, " "));
    assert_eq!(read(&keys), Ports::default());
    assert_eq!(read(&[]), Ports::default());
}

#[test]
fn a_bad_value_is_named_with_its_key_and_the_good_ones_still_apply() {
    let read = read(&[
        (
            "dnat-ports-pair",
            "9100=10264,9200=9999,9300=,=10264,a=10264",
        ),
        ("http-proxy-ports", "9445,0,65536,-1,9 9,91oo,9051"),
    ]);
    assert_eq!(read.tunnelled, ports(&[9051, 9100, 9445]));
    let messages = messages(&read);
    assert_eq!(
        messages,
        [
            "dnat-ports-pair: \"9200=9999\", \"9300=\", \"=10264\", \"a=10264\" left out: \
             expected PORT=10264, ... with ports from 1 to 65535",
            "http-proxy-ports: \"0\", \"65536\", \"-1\", \"9 9\", \"91oo\" left out: \
             expected PORT, ... with ports from 1 to 65535",
        ]
    );
}

#[test]
fn the_servers_own_ports_are_not_tunnelled_wherever_they_are_asked_for() {
    let read = read(&[
        ("http-proxy-ports", "10270,9100"),
        ("localhost-proxy-ports", "10262,10270"),
    ]);
    assert_eq!(
        (read.tunnelled, read.loopback),
        (ports(&[9100]), ports(&[]))
    );
    let owns = |ports: &PortsProblem| matches!(ports, PortsProblem::Reserved { .. });
    assert!(read.problems.iter().all(owns));
    assert!(read.problems[1].to_string().contains("10262, 10270"));
}

#[test]
fn a_key_that_means_nothing_is_named_with_those_that_do() {
    let read = read(&[("http-proxy-port", "9100")]);
    assert_eq!(read.tunnelled, ports(&[]));
    let [message] = &messages(&read)[..] else {
        panic!("one problem expected")
    };
    assert!(message.contains("\"http-proxy-port\""), "{message}");
    assert!(message.contains("localhost-proxy-ports"), "{message}");
}

#[test]
fn a_flood_of_values_fills_neither_the_table_nor_the_message() {
    let all: Vec<String> = (1..=65_535).map(|port: u32| port.to_string()).collect();
    let flood = read(&[("localhost-proxy-ports", &all.join(","))]);
    assert_eq!(flood.tunnelled.len(), MOST_PORTS);
    assert_eq!(flood.loopback, flood.tunnelled);
    let too_many = flood.problems.last().unwrap().to_string();
    assert!(
        too_many.contains("65533 ports are more than the 512"),
        "{too_many}"
    );

    let nonsense = "ü".repeat(500) + &",x".repeat(20_000);
    let [message] = &messages(&read(&[("http-proxy-ports", &nonsense)]))[..] else {
        panic!("one problem expected")
    };
    assert!(message.len() < 300, "{message}");
    assert!(message.contains("19993 more"), "{message}");
}
