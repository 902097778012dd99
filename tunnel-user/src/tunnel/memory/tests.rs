use std::net::IpAddr;

use super::*;

const KIB: usize = 1024;

/// Memory for 39 connections, four of which have whole windows of 64 KiB.
fn memory() -> Memory {
    let memory = Memory::new((1 << 20) / 5 * 8, 64 * 1024);
    assert_eq!(memory.most_connections(), 39);
    memory
}

#[test]
fn windows_shrink_for_those_who_come_and_nobody_is_let_in_beyond_the_last_share() {
    let memory = memory();
    let mut open: Vec<ConnectionShare> = Vec::new();
    let mut windows = Vec::new();
    while let Ok(share) = memory.admit(Client::Machine) {
        open.push(share);
        windows.push(memory.window() / 1024);
    }
    assert_eq!(open.len(), 39);
    windows.dedup();
    assert_eq!(windows, [64, 32, 16, 8]);
    open.truncate(3);
    assert_eq!(memory.window() / 1024, 64);
}

#[test]
fn one_client_leaves_shares_to_others() {
    let memory = memory();
    let pod = Client::Address(IpAddr::from([10, 244, 0, 1]));
    let mut open = Vec::new();
    let refused = loop {
        match memory.admit(pod) {
            Ok(share) => open.push(share),
            Err(refused) => break refused,
        }
    };
    assert_eq!((open.len(), refused), (19, NoPlace::ClientFull(19)));
    assert!(memory.admit(Client::Machine).is_ok());
}

#[test]
fn reads_are_drawn_while_there_is_something_and_come_back() {
    let memory = memory();
    let share = memory.admit(Client::Machine).unwrap();
    let mut reads = Vec::new();
    while let Some(read) = share.draw_read(16 * KIB) {
        reads.push(read);
    }
    assert_eq!(reads.len(), 3);
    reads.push(share.own_read(SMALLEST_READ));
    assert_eq!(memory.held(), 3 * 16 * 1024 + 4 * 1024);
    reads.clear();
    assert_eq!(memory.held(), 0);
    assert!(share.draw_read(16 * KIB).is_some());
}

#[test]
fn a_peer_that_does_not_keep_to_its_window_is_cut_off_before_others_are() {
    let memory = memory();
    let shares: Vec<_> = (0..2)
        .map(|_| memory.admit(Client::Machine).unwrap())
        .collect();
    let (mut greedy, mut modest) = (shares[0].received(), shares[1].received());
    let all = usize::try_from(memory.0.shares.received()).unwrap() + 8 * KIB;
    assert!(greedy.grow(all).is_err());
    assert_eq!(memory.window(), SMALLEST_WINDOW);
    modest.grow(8 * KIB).unwrap();
    drop(greedy);
    assert_eq!(memory.held(), 8 * 1024);
    assert_eq!(memory.window(), 64 * 1024);
}

#[test]
fn windows_that_are_no_longer_drawn_may_fill_a_quarter_and_others_are_unharmed() {
    let memory = memory();
    let share = memory.admit(Client::Machine).unwrap();
    let (mut rested, mut other) = (share.received(), share.received());
    let first = 64 * KIB;
    let most = usize::try_from(memory.0.shares.uncovered()).unwrap() + first;
    rested.grow(most).unwrap();
    other.grow(first).unwrap();
    assert!(rested.grow(most + 1).is_err());
    other.grow(first).unwrap();
    rested.shrink(most);
    rested.set_growth(most as u64);
    rested.grow(most + first).unwrap();
    assert_eq!(memory.0.uncovered.load(Ordering::Relaxed), 0);
}
