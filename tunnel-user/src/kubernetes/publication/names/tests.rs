use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::ByteString;

use super::*;
use crate::kubernetes::source::NodePlace;

const TEXT: &str = "10.77.0.1\tc1\n10.96.0.7\te1";

fn listing(nodes: &[(&str, Option<&str>)]) -> Listing {
    let listed = |(name, own): &(&str, Option<&str>)| {
        let direct = |own: &str| NodePlace::Direct(vec![own.parse().unwrap()]);
        let place = own.map_or(NodePlace::Tunnelled, direct);
        (name.parse().unwrap(), place)
    };
    Listing {
        nodes: nodes.iter().map(listed).collect(),
        ports: None,
    }
}

fn usual() -> Listing {
    listing(&[("c1", Some("10.77.0.1")), ("e1", None)])
}

fn service() -> Vec<IpAddr> {
    vec!["10.96.0.7".parse().unwrap()]
}

fn no_service() -> ServiceAddress {
    Err(Problem::NoService("kube-system/internal".parse().unwrap()))
}

fn live(data: &[(&str, &str)]) -> ConfigMap {
    let data: BTreeMap<_, _> = data
        .iter()
        .map(|(k, v)| ((*k).into(), (*v).into()))
        .collect();
    ConfigMap {
        data: Some(data),
        ..ConfigMap::default()
    }
}

fn crowd(nodes: usize) -> Listing {
    let names: Vec<String> = (0..nodes).map(|n| format!("node-{n:08}")).collect();
    listing(
        &names
            .iter()
            .map(|name| (name.as_str(), None))
            .collect::<Vec<_>>(),
    )
}

#[test]
fn what_differs_is_written_and_what_is_there_is_not() {
    for (live, write) in [
        (None, Some(TEXT)),
        (Some(ConfigMap::default()), Some(TEXT)),
        (Some(live(&[(KEY, "10.77.0.1\tc1")])), Some(TEXT)),
        (Some(live(&[(KEY, TEXT)])), None),
        (Some(live(&[(KEY, TEXT), ("mine", "x")])), None),
    ] {
        let plan = plan(&usual(), Ok(service()), live.as_ref());
        assert_eq!(plan.write.as_deref(), write, "{live:?}");
        assert_eq!((plan.entries, plan.problems.len()), (2, 0));
    }
}

#[test]
fn without_an_address_for_edge_nodes_the_last_records_stay() {
    let last = live(&[(KEY, "10.96.0.9\te1")]);
    let stays = plan(&usual(), no_service(), Some(&last));
    assert_eq!(stays.write, None);
    assert_eq!((stays.entries, stays.bytes), (1, 12));
    assert_eq!(stays.problems.len(), 1);

    let needs_none = plan(
        &listing(&[("c1", Some("10.77.0.1"))]),
        no_service(),
        Some(&last),
    );
    assert_eq!(needs_none.write.as_deref(), Some("10.77.0.1\tc1"));
    assert!(needs_none.problems.is_empty());
}

#[test]
fn the_limit_is_told_of_before_it_is_reached_and_nothing_is_cut() {
    let line = "10.96.0.7\tnode-00000000\n".len();
    let reasons = |plan: &Plan<String>| {
        plan.problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let fits = plan(&crowd(NEARLY_FULL / line), Ok(service()), None);
    assert!(fits.write.is_some() && fits.problems.is_empty());

    let nearly = plan(&crowd(NEARLY_FULL / line + 1), Ok(service()), None);
    assert_eq!(
        nearly.write.as_deref().map(|text| text.lines().count()),
        Some(NEARLY_FULL / line + 1)
    );
    assert!(
        reasons(&nearly)[0].contains("90 % full"),
        "{:?}",
        nearly.problems
    );

    let full = plan(&crowd(LIMIT / line + 1), Ok(service()), None);
    assert_eq!(full.write, None);
    assert!(
        reasons(&full)[0].contains("what was written last stays"),
        "{:?}",
        full.problems
    );
}

#[test]
fn what_others_keep_in_it_counts() {
    let mut live = live(&[("mine", &"x".repeat(LIMIT / 2))]);
    let with_text = plan(&usual(), Ok(service()), Some(&live));
    assert_eq!(with_text.bytes, LIMIT / 2 + TEXT.len());
    let binary = ByteString(vec![0; LIMIT / 2]);
    live.binary_data = Some([("blob".to_owned(), binary)].into());
    let full = plan(&usual(), Ok(service()), Some(&live));
    assert_eq!((full.write, full.problems.len()), (None, 1));
}
