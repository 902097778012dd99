use serde_json::{Value, json};

use super::*;
use crate::{kubernetes::publication::FIELD_MANAGER, model::PortSet};

fn port(number: u16) -> TunnelPort {
    TunnelPort::new(number).unwrap()
}

fn schemes(ports: &[(u16, Scheme)]) -> SchemedPorts {
    ports
        .iter()
        .map(|(number, scheme)| (port(*number), *scheme))
        .collect()
}

fn kubelets_and(ports: &[(u16, Scheme)]) -> Vec<AppliedPort> {
    let (wanted, left_out) = wanted(&schemes(ports), &ListeningPorts::default());
    assert_eq!(left_out, []);
    wanted
}

/// A port with its owners: which manager has written which fields.
struct Live<'a>(&'a str, u16, u16, &'a [(&'a str, &'a [&'a str])]);

const ALL: &[&str] = &["f:name", "f:port", "f:protocol", "f:targetPort"];
const OURS: &[(&str, &[&str])] = &[(FIELD_MANAGER, ALL)];
const USERS: &[(&str, &[&str])] = &[("kubectl", ALL)];
const KUBELET: [Live<'static>; 2] = [
    Live("https", 10250, 10263, OURS),
    Live("http", 10255, 10264, OURS),
];

fn service<'a>(ports: impl IntoIterator<Item = Live<'a>>) -> Service {
    let mut listed = Vec::new();
    let mut managers: BTreeMap<String, serde_json::Map<String, Value>> = BTreeMap::new();
    for Live(name, port, target, owners) in ports {
        listed.push(json!({ "name": name, "port": port, "protocol": "TCP", "targetPort": target }));
        for (manager, fields) in owners {
            let key = format!("k:{}", json!({ "port": port, "protocol": "TCP" }));
            let fields: serde_json::Map<_, _> = fields
                .iter()
                .map(|field| ((*field).to_owned(), json!({})))
                .collect();
            managers
                .entry((*manager).to_owned())
                .or_default()
                .insert(key, fields.into());
        }
    }
    let entry = |(manager, ports): (String, serde_json::Map<String, Value>)| {
        let is_ours = manager == FIELD_MANAGER;
        json!({
            "manager": manager,
            "operation": if is_ours { "Apply" } else { "Update" },
            "fieldsType": "FieldsV1",
            "fieldsV1": { "f:spec": { "f:ports": ports, "f:type": {} } },
        })
    };
    let managers: Vec<_> = managers.into_iter().map(entry).collect();
    serde_json::from_value(json!({
        "metadata": { "name": "internal", "managedFields": managers },
        "spec": { "ports": listed },
    }))
    .unwrap()
}

fn planned(wanted: &[AppliedPort], service: &Service) -> Plan<Vec<AppliedPort>> {
    plan(wanted, service)
}

fn names(plan: &Plan<Vec<AppliedPort>>) -> Option<Vec<&str>> {
    let write = plan.write.as_ref()?;
    Some(write.iter().map(|applied| applied.name.as_str()).collect())
}

fn messages(plan: &Plan<Vec<AppliedPort>>) -> Vec<String> {
    plan.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn ports_have_yurt_tunnels_names_and_lead_to_their_listeners() {
    let wanted = kubelets_and(&[
        (9100, Scheme::Http),
        (9443, Scheme::Https),
        // Built in, whatever is listed.
        (10250, Scheme::Http),
        (10255, Scheme::Https),
    ]);
    let wanted: Vec<_> = wanted
        .iter()
        .map(|wanted| {
            (
                wanted.name.as_str(),
                wanted.port.number(),
                wanted.target.clone(),
            )
        })
        .collect();
    let target = IntOrString::Int;
    let expected = [
        ("dnat-9100", 9100, target(10264)),
        ("dnat-9443", 9443, target(29443)),
        ("https", 10250, target(10263)),
        ("http", 10255, target(10264)),
    ];
    assert_eq!(wanted, expected);
}

#[test]
fn what_is_missing_is_applied_and_what_is_there_is_not() {
    let user = Live("tcp", 10262, 10262, USERS);
    let wanted = kubelets_and(&[]);
    let plan = planned(&wanted, &service([user]));
    assert_eq!(names(&plan), Some(vec!["https", "http"]));
    assert_eq!(messages(&plan), [""; 0]);

    let there = service(
        KUBELET
            .into_iter()
            .chain([Live("tcp", 10262, 10262, USERS)]),
    );
    let plan = planned(&wanted, &there);
    assert_eq!(names(&plan), None);
    assert_eq!(plan.entries, 2);
}

#[test]
fn what_is_listed_no_longer_goes_by_not_being_applied() {
    let live = service(
        KUBELET
            .into_iter()
            .chain([Live("dnat-9100", 9100, 10264, OURS)]),
    );
    let plan = planned(&kubelets_and(&[]), &live);
    assert_eq!(names(&plan), Some(vec!["https", "http"]));
}

#[test]
fn a_changed_scheme_and_somebody_elses_deletion_are_put_right() {
    let live = service(
        KUBELET
            .into_iter()
            .chain([Live("dnat-9100", 9100, 10264, OURS)]),
    );
    let plan = planned(&kubelets_and(&[(9100, Scheme::Https)]), &live);
    let applied = plan.write.unwrap();
    assert_eq!(applied[0].target, IntOrString::Int(29100));
    assert!(plan.problems.is_empty());

    // Removed from the list, which takes it out of what we own as well.
    let [https, _] = KUBELET;
    let plan = planned(&kubelets_and(&[]), &service([https]));
    assert_eq!(names(&plan), Some(vec!["https", "http"]));
}

#[test]
fn the_same_port_of_somebody_elses_is_shared() {
    let manifests = [
        Live("https", 10250, 10263, USERS),
        Live("http", 10255, 10264, USERS),
    ];
    let plan = planned(&kubelets_and(&[]), &service(manifests));
    assert_eq!(names(&plan), Some(vec!["https", "http"]));
    assert_eq!(messages(&plan), [""; 0]);

    let both: &[(&str, &[&str])] = &[OURS[0], USERS[0]];
    let shared = [
        Live("https", 10250, 10263, both),
        Live("http", 10255, 10264, both),
    ];
    assert_eq!(names(&planned(&kubelets_and(&[]), &service(shared))), None);
}

#[test]
fn a_port_that_is_somebody_elses_stays_and_the_others_are_applied() {
    let wanted = kubelets_and(&[(9100, Scheme::Http)]);
    let user = || Live("metrics", 9100, 9100, USERS);
    let plan = planned(&wanted, &service([user()]));
    assert_eq!(names(&plan), Some(vec!["https", "http"]));
    let [message] = &messages(&plan)[..] else {
        panic!("{plan:?}")
    };
    for part in [
        "port 9100",
        "(kubectl)",
        "dnat-9100 to 10264",
        "out of the ports' ConfigMap",
    ] {
        assert!(message.contains(part), "{message}");
    }
    // And that is all that is ever written.
    let plan = planned(&wanted, &service(KUBELET.into_iter().chain([user()])));
    assert_eq!(names(&plan), None);
    assert_eq!(plan.problems.len(), 1);
}

#[test]
fn one_of_ours_that_somebody_has_edited_stays_as_edited() {
    let wanted = kubelets_and(&[(9100, Scheme::Http)]);
    let manager = FIELD_MANAGER;
    let edited: &[(&str, &[&str])] = &[
        (manager, &["f:name", "f:port", "f:protocol"]),
        ("kubectl-edit", &["f:targetPort"]),
    ];
    let live = service(
        KUBELET
            .into_iter()
            .chain([Live("dnat-9100", 9100, 9999, edited)]),
    );
    let plan = planned(&wanted, &live);
    assert_eq!(names(&plan), None, "given up, it would become half a port");
    assert!(messages(&plan)[0].contains("(kubectl-edit)"), "{plan:?}");

    // It is still applied with what else changes.
    let wanted = kubelets_and(&[(9100, Scheme::Http), (9200, Scheme::Http)]);
    let applied = planned(&wanted, &live).write.unwrap();
    assert_eq!(applied[0].target, IntOrString::Int(9999));
    assert_eq!(applied[1].name, "dnat-9200");
}

#[test]
fn what_nobody_owns_is_put_right() {
    let live = service([
        Live("https", 10250, 1, &[]),
        Live("http", 10255, 10264, &[]),
    ]);
    let plan = planned(&kubelets_and(&[]), &live);
    assert_eq!(plan.write.unwrap()[0].target, IntOrString::Int(10263));
}

#[test]
fn a_name_that_another_port_has_is_no_second_ports() {
    let plan = plan(
        &kubelets_and(&[]),
        &service([Live("https", 443, 443, USERS)]),
    );
    assert_eq!(names(&plan), Some(vec!["http"]));
    let [message] = &messages(&plan)[..] else {
        panic!("{plan:?}")
    };
    assert!(message.contains("another port named https"), "{message}");

    // Unless that one goes by the same write.
    let ours = Live("http", 10256, 10264, OURS);
    let plan = planned(&kubelets_and(&[]), &service([ours]));
    assert_eq!(names(&plan), Some(vec!["https", "http"]));
}

#[test]
fn ports_of_other_protocols_are_other_ports() {
    let mut live = service(KUBELET);
    let mut udp = live.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].clone();
    (udp.protocol, udp.name) = (Some("UDP".to_owned()), Some("other".to_owned()));
    live.spec
        .as_mut()
        .unwrap()
        .ports
        .as_mut()
        .unwrap()
        .push(udp);
    assert_eq!(names(&planned(&kubelets_and(&[]), &live)), None);
}

#[test]
fn of_https_ports_that_end_alike_the_service_has_the_one_that_servers_take() {
    let listed = schemes(&[
        (9443, Scheme::Https),
        (19443, Scheme::Https),
        (29443, Scheme::Http),
    ]);
    let (wanted, left_out) = wanted(&listed, &ListeningPorts::default());
    let ports: Vec<u16> = wanted.iter().map(|wanted| wanted.port.number()).collect();
    assert_eq!(ports, [9443, 10250, 10255, 29443]);
    let [problem] = &left_out[..] else {
        panic!("{left_out:?}");
    };
    let said = problem.to_string();
    assert!(
        said.contains("no port 19443") && said.contains("port 9443"),
        "{said}"
    );
}

#[test]
fn ports_lead_where_servers_listen_and_there_are_none_for_which_they_do_not() {
    let listed = schemes(&[(9100, Scheme::Http), (9443, Scheme::Https)]);
    let targets = |https, http| -> Vec<_> {
        let listening = ListeningPorts {
            https,
            http,
            own: PortSet::new(),
        };
        let (wanted, left_out) = wanted(&listed, &listening);
        assert_eq!(left_out, []);
        let target = |wanted: AppliedPort| (wanted.port.number(), target(&wanted.target));
        wanted.into_iter().map(target).collect()
    };
    let to = |port: u16, target: &str| (port, target.to_owned());
    assert_eq!(
        targets(Some(8263), Some(8264)),
        [
            to(9100, "8264"),
            to(9443, "29443"),
            to(10250, "8263"),
            to(10255, "8264")
        ]
    );
    assert_eq!(
        targets(Some(8263), None),
        [to(9443, "29443"), to(10250, "8263")]
    );
    assert_eq!(
        targets(None, Some(8264)),
        [to(9100, "8264"), to(10255, "8264")]
    );
}

#[test]
fn a_port_whose_listening_port_is_the_servers_own_is_left_out() {
    let listed = schemes(&[(9443, Scheme::Https)]);
    let listening = ListeningPorts {
        https: Some(29443),
        http: None,
        own: [port(29443)].into_iter().collect(),
    };
    let (wanted, left_out) = wanted(&listed, &listening);
    let ports: Vec<u16> = wanted.iter().map(|wanted| wanted.port.number()).collect();
    assert_eq!(ports, [10250]);
    assert_eq!(left_out.len(), 1, "{left_out:?}");
}
