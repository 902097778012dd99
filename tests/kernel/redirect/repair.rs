//! What a server finds that an earlier one, or somebody else, left; and what it leaves itself.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::Instant,
};

use aya::maps::{HashMap, MapData};
use culvert_tests::{Cgroup, command};
use tunnel_ebpf::{ABI, Address, NodeEntry, maps, programs};
use tunnel_user::{
    model::{GatePolicy, Node, PortSet, Snapshot, TunnelPort},
    redirect::{
        self, GateState, Listeners, NodeMode, Options, Redirect, RedirectState, Sharing, Table,
    },
};

use super::lab::{NODE_V4, PATIENCE, RedirectLab, stop};

fn options(lab: &RedirectLab) -> Options {
    Options {
        cgroup: Some(lab.cgroup.path().to_owned()),
        pin_root: lab.pins.path().join("culvert"),
        ..Options::default()
    }
}

/// For a server that takes over.
fn successor(lab: &RedirectLab) -> Options {
    Options {
        sharing: Sharing::WithPredecessor,
        ..options(lab)
    }
}

/// Where this version of the maps is pinned.
fn version(options: &Options) -> PathBuf {
    options.pin_root.join(format!("v{ABI}"))
}

fn table(addresses: &[&str]) -> Table {
    let node = Node {
        name: "edge".parse().unwrap(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        extra_ports: PortSet::new(),
        closed_gate: None,
        admits: None,
    };
    let snapshot = Snapshot::new([node], [TunnelPort::KUBELET].into());
    let capture = |_: &_| NodeMode::Capture;
    Table::new(&snapshot, &BTreeSet::new(), GatePolicy::Bypass, capture).0
}

fn ids(state: &RedirectState) -> Vec<Option<u32>> {
    assert!(state.programs.iter().all(|program| program.attached));
    state.programs.iter().map(|program| program.id).collect()
}

#[test]
fn the_next_server_adopts_what_is_pinned_and_replaces_the_programs() {
    let lab = RedirectLab::new();
    let options = options(&lab);
    let mut first = Redirect::install(&options).unwrap();
    first.apply(&table(&["10.78.0.11", "fd00:78::11"])).unwrap();
    let before = first.state().unwrap();
    drop(first);

    let mut second = Redirect::install(&options).unwrap();
    let after = second.state().unwrap();
    assert_eq!((after.nodes, after.ports.as_slice()), (2, &[10250][..]));
    let all_new = ids(&before)
        .iter()
        .zip(ids(&after))
        .all(|(old, new)| *old != new);
    assert!(all_new, "{before:?} {after:?}");
    let changes = second.apply(&table(&["10.78.0.11", "10.78.0.12"])).unwrap();
    assert_eq!((changes.nodes_added, changes.nodes_removed), (1, 1));
    let again = second.apply(&table(&["10.78.0.11", "10.78.0.12"])).unwrap();
    assert!(again.is_empty(), "{again:?}");
}

#[test]
fn uninstalling_leaves_nothing_pinned_and_nothing_attached() {
    let lab = RedirectLab::new();
    let options = options(&lab);
    let redirect = Redirect::install(&options).unwrap();
    drop(redirect);
    let removed = redirect::uninstall(&options).unwrap();
    assert_eq!(
        (removed.links.len(), removed.maps.len()),
        (programs::ALL.len(), maps::ALL.len())
    );
    assert!(!options.pin_root.exists());
    wait_until_detached(lab.cgroup.path());
    assert_eq!(redirect::uninstall(&options).unwrap().links.len(), 0);
}

#[test]
fn a_redirect_in_use_is_neither_taken_nor_removed() {
    let lab = RedirectLab::new();
    let options = options(&lab);
    let mut redirect = Redirect::install(&options).unwrap();
    let before = redirect.state().unwrap();
    let own_id = format!("process {} uses", std::process::id());
    let error = Redirect::install(&options).err().unwrap().to_string();
    assert!(error.contains(&own_id), "{error}");
    let error = redirect::uninstall(&options).unwrap_err().to_string();
    assert!(error.contains(&own_id), "{error}");
    redirect::refuse_in_use(&options).unwrap_err();
    assert_eq!(ids(&redirect.state().unwrap()), ids(&before));
    redirect.release();
    redirect::refuse_in_use(&options).unwrap();
    let removed = redirect::uninstall(&options).unwrap();
    assert_eq!(removed.links.len(), programs::ALL.len());
}

#[test]
fn a_link_on_a_cgroup_that_is_gone_or_another_is_replaced() {
    let lab = RedirectLab::new();
    let mut options = options(&lab);
    let other = Cgroup::new("other").unwrap();
    options.cgroup = Some(other.path().to_owned());
    drop(Redirect::install(&options).unwrap());

    // Another cgroup.
    options.cgroup = Some(lab.cgroup.path().to_owned());
    let state = Redirect::install(&options).unwrap().state().unwrap();
    assert!(
        state.programs.iter().all(|program| program.attached),
        "{state:?}"
    );
    wait_until_detached(other.path());

    // One that is gone.
    options.cgroup = Some(other.path().to_owned());
    drop(Redirect::install(&options).unwrap());
    drop(other);
    options.cgroup = Some(lab.cgroup.path().to_owned());
    let state = Redirect::install(&options).unwrap().state().unwrap();
    assert!(
        state.programs.iter().all(|program| program.attached),
        "{state:?}"
    );
}

#[test]
fn a_map_of_another_shape_is_replaced_and_keeps_its_entries() {
    let lab = RedirectLab::new();
    let options = options(&lab);
    drop(Redirect::install(&options).unwrap());
    let pinned = version(&options).join("nodes");
    let address = Address::from("10.78.0.11".parse::<std::net::IpAddr>().unwrap());
    let entry = NodeEntry {
        groups: 1,
        node_mode: 0,
        closed_gate: 0,
        slot: 0,
        reserved: 0,
    };
    // The same keys and values, but room for three only.
    fs::remove_file(&pinned).unwrap();
    let mut small = HashMap::<MapData, Address, NodeEntry>::create(3, 0).unwrap();
    small.insert(address, entry, 0).unwrap();
    small.pin(&pinned).unwrap();

    let mut redirect = Redirect::install(&options).unwrap();
    assert_eq!(redirect.state().unwrap().nodes, 1);
    let many: Vec<String> = (1..100).map(|i| format!("10.78.1.{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    redirect.apply(&table(&many)).unwrap();
    assert_eq!(redirect.state().unwrap().nodes, 99);
    drop(redirect);

    // Values that cannot be read: the map is replaced, its content comes with the next table.
    fs::remove_file(&pinned).unwrap();
    let other = HashMap::<MapData, u32, u32>::create(3, 0).unwrap();
    other.pin(&pinned).unwrap();
    let mut redirect = Redirect::install(&options).unwrap();
    redirect.apply(&table(&["10.78.0.11"])).unwrap();
    assert_eq!(redirect.state().unwrap().nodes, 1);
    let left: Vec<_> = fs::read_dir(version(&options)).unwrap().collect();
    let all = maps::ALL.len() + programs::ALL.len();
    assert_eq!(left.len(), all, "{left:?}");
}

/// A server that runs goes on, unless it could not read any more what the programs hand over.
#[test]
fn the_gate_stays_open_while_maps_are_replaced_if_the_running_server_can_use_the_new_ones() {
    for (map, stays) in [
        (maps::NODES, GateState::Open),
        (maps::CLIENT_DST, GateState::Open),
        (maps::ACCEPTED_DST, GateState::StaleHeartbeat),
    ] {
        let lab = RedirectLab::new();
        let mut running = Redirect::install(&options(&lab)).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners = Listeners {
            v4: Some(listener.as_fd()),
            v6: None,
        };
        running.open_gate(&listeners).unwrap();
        let pinned = version(&options(&lab)).join(map);
        fs::remove_file(&pinned).unwrap();
        let other = HashMap::<MapData, u32, u32>::create(3, 0).unwrap();
        other.pin(&pinned).unwrap();

        let mut next = Redirect::install(&successor(&lab)).unwrap();
        assert_eq!(running.state().unwrap().gate, stays, "{map}");
        next.open_gate(&listeners).unwrap();
        assert_eq!(next.state().unwrap().gate, GateState::Open, "{map}");
    }
}

/// Links of another version keep their programs until the gate is opened, then change to ours.
#[test]
fn another_versions_programs_are_replaced_when_the_gate_opens() {
    let lab = RedirectLab::new();
    let options = options(&lab);
    let mut older = Redirect::install(&options).unwrap();
    let before = older.state().unwrap();
    let (other, own) = (options.pin_root.join("v0"), version(&options));
    fs::rename(&own, &other).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = Listeners {
        v4: Some(listener.as_fd()),
        v6: None,
    };
    older.open_gate(&listeners).unwrap();

    let mut redirect = Redirect::install(&successor(&lab)).unwrap();
    assert!(other.join("link_connect4").exists() && !own.join("link_connect4").exists());
    redirect.apply(&table(&["10.78.0.11"])).unwrap();
    assert_eq!(older.state().unwrap().gate, GateState::Open);
    redirect.open_gate(&listeners).unwrap();
    assert!(!other.exists());
    let after = redirect.state().unwrap();
    assert_eq!(after.gate, GateState::Open);
    let all_new = ids(&before)
        .iter()
        .zip(ids(&after))
        .all(|(old, new)| *old != new);
    assert!(all_new, "{before:?} {after:?}");
}

#[test]
fn the_gate_tells_its_state() {
    let lab = RedirectLab::new();
    let mut redirect = Redirect::install(&options(&lab)).unwrap();
    assert_eq!(redirect.state().unwrap().gate, GateState::NoListener);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = Listeners {
        v4: Some(listener.as_fd()),
        v6: None,
    };
    redirect.open_gate(&listeners).unwrap();
    assert_eq!(redirect.state().unwrap().gate, GateState::Open);
    assert!(redirect.close_gate().unwrap());
    assert!(!redirect.close_gate().unwrap());
    assert_eq!(redirect.state().unwrap().gate, GateState::NoListener);
    redirect.open_gate(&listeners).unwrap();
    drop(listener);
    wait_for_closed_gate(&redirect);
}

/// A successor that got the listening socket itself opens the gate with it once more.
#[test]
fn a_listener_that_was_handed_over_still_closes_the_gate_when_it_dies() {
    let lab = RedirectLab::new();
    let mut first = Redirect::install(&options(&lab)).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = Listeners {
        v4: Some(listener.as_fd()),
        v6: None,
    };
    first.open_gate(&listeners).unwrap();
    let mut second = Redirect::install(&successor(&lab)).unwrap();
    second.open_gate(&listeners).unwrap();
    assert!(!first.close_gate().unwrap());
    assert_eq!(second.state().unwrap().gate, GateState::Open);
    drop(listener);
    wait_for_closed_gate(&second);
}

/// The kernel empties the slot when the socket is closed; a child that another test is starting may
/// hold it a moment longer.
fn wait_for_closed_gate(redirect: &Redirect) {
    let deadline = Instant::now() + PATIENCE;
    while redirect.state().unwrap().gate != GateState::NoListener {
        assert!(Instant::now() < deadline, "still open");
        std::thread::yield_now();
    }
}

#[test]
fn a_listener_that_is_no_place_to_redirect_to_is_refused() {
    let lab = RedirectLab::new();
    let mut redirect = Redirect::install(&options(&lab)).unwrap();
    let everywhere = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let one = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = std::net::TcpListener::bind("[::1]:0").unwrap();
    for (v4, v6, says) in [
        (None, None, "no listening socket"),
        (Some(&everywhere), None, "must be bound to one address"),
        (Some(&other), None, "other address family"),
        (Some(&one), Some(&other), "must share one port"),
    ] {
        let listeners = Listeners {
            v4: v4.map(|listener| listener.as_fd()),
            v6: v6.map(|listener| listener.as_fd()),
        };
        let error = redirect.open_gate(&listeners).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// The plain object follows libbpf's conventions, so bpftool loads it and shows the fields' names.
#[test]
fn bpftool_loads_the_object_and_shows_field_names() {
    let lab = RedirectLab::new();
    let into = lab.load_with_bpftool("bpftool");
    let programs = fs::read_dir(&into).unwrap().count();
    assert_eq!(programs, programs::ALL.len());

    let mut redirect = Redirect::install(&options(&lab)).unwrap();
    redirect.apply(&table(&["10.78.0.11"])).unwrap();
    let dump = |map: &str| {
        let path = version(&options(&lab)).join(map);
        command::run("bpftool", ["map", "dump", "pinned", path.to_str().unwrap()]).unwrap()
    };
    assert!(dump(maps::NODES).contains("\"closed_gate\": 0"));
    assert!(dump(maps::PORTS).contains("\"key\": 10250"));
    assert!(dump(maps::CONFIG).contains("\"heartbeat_max_age\""));
    assert!(dump(maps::COUNTERS).contains("\"redirected\": 0"));
}

#[test]
fn a_restarted_server_finds_the_way_of_connections_that_are_open() {
    let lab = RedirectLab::new();
    let mut server = lab.server("");
    lab.reaches(&format!("--to {NODE_V4}"));
    let first = stop(&mut server);
    let mut server = lab.server("");
    lab.reaches(&format!("--to {NODE_V4}"));
    let second = stop(&mut server);
    // The counters go on, they belong to the kernel.
    assert_eq!(first.counters["redirected"], 1);
    assert_eq!(second.counters["redirected"], 2);
}

/// The kernel detaches what a link held in a task of its own, soon after its pin is gone.
fn wait_until_detached(cgroup: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while !attached(cgroup).is_empty() {
        assert!(Instant::now() < deadline, "{}", attached(cgroup));
    }
}

fn attached(cgroup: &Path) -> String {
    command::run("bpftool", ["cgroup", "show", cgroup.to_str().unwrap()])
        .unwrap()
        .trim()
        .to_owned()
}
