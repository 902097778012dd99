//! Hands the original destination of a connect that no range serves from the client's socket to the
//! server's accepted one, by a note under the connection's 4-tuple.
//!
//! `TCP_CONNECT_CB` runs with the source port chosen and before the SYN exists; so the note is there
//! before anything can be accepted, TCP Fast Open included. `PASSIVE_ESTABLISHED_CB` runs with the
//! accepted socket locked; `accept()` takes the same lock.
//!
//! Addresses and ports are chosen by whoever owns a network namespace, so a tuple names no socket. A
//! note says whose it is; one that two namespaces wrote serves neither, none is removed from another
//! namespace, and nobody else writes one for an address of the server's own. No note makes room for
//! another either: where there is no room, a connect is not noted, and closed.

use core::ptr::{from_ref, read_volatile, write_volatile};

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use tunnel_ebpf::{Config, Endpoint, OBSOLETE_NOTE, Pending, Tuple};

use crate::{count::count, maps, ops::Ops};

/// A SYN is about to leave for `tuple.server`. True if it carries a redirected connect.
#[inline(always)]
pub(crate) fn connecting(ops: &Ops, config: &Config) -> bool {
    let Some(socket) = ops.socket() else {
        return false;
    };
    let remote_port = ops.remote_port();
    let Some(dst) = maps::client_dst_of(socket).filter(|dst| dst.redirect.port() == remote_port)
    else {
        if remote_port == config.port {
            dialled_directly(&ops.tuple_of_client(), ops.netns());
        }
        return false;
    };
    let tuple = ops.tuple_of_client();
    if dst.redirect.address != tuple.server.address {
        return false;
    }
    note(&tuple, dst.original, ops.netns(), config);
    true
}

/// A connection is about to become acceptable.
#[inline(always)]
pub(crate) fn accepted(ops: &Ops, config: &Config) {
    if ops.local_port() != config.port {
        return;
    }
    let tuple = ops.tuple_of_server();
    let here = tuple.server.address;
    if here != config.redirect_v4 && here != config.redirect_v6 {
        return;
    }
    let netns = ops.netns();
    if netns != config.own_netns && netns != 0 {
        return;
    }
    let Some(pending) = maps::pending(&tuple) else {
        count(|c| &mut c.no_original);
        return;
    };
    if Note(pending).is_ambiguous() {
        count(|c| &mut c.no_original);
        return;
    }
    // SAFETY: a value of the map, which stays while the program runs.
    let original = unsafe { (*pending).original };
    let Some(socket) = ops.socket() else { return };
    if maps::remember_accepted_dst(socket, &original) {
        maps::remove_pending(&tuple);
        count(|c| &mut c.handed_over);
    } else {
        // The server finds and deletes the tuple.
        count(|c| &mut c.handover_failed);
    }
}

#[inline(always)]
fn note(tuple: &Tuple, original: Endpoint, netns: u64, config: &Config) {
    // 0: this kernel does not tell.
    if netns != 0 && netns != config.own_netns && maps::is_own_address(&tuple.client.address) {
        count(|c| &mut c.pending_foreign);
        return;
    }
    // SAFETY: a helper without pointers.
    let noted_at = unsafe { bpf_ktime_get_ns() };
    let pending = Pending {
        original,
        netns,
        noted_at,
        ambiguous: 0,
    };
    if maps::insert_pending(tuple, &pending).is_ok() {
        return;
    }
    let Some(found) = maps::pending(tuple) else {
        count(|c| &mut c.pending_failed);
        return;
    };
    let found = Note(found);
    if noted_at.saturating_sub(found.noted_at()) > OBSOLETE_NOTE {
        if maps::replace_pending(tuple, &pending).is_err() {
            count(|c| &mut c.pending_failed);
        }
    } else if found.owner() == netns {
        // Within a namespace a tuple is one socket's: what it left there is stale. In place, for the
        // other namespace may be finding it ambiguous on another CPU at this moment.
        found.set_original(&original, noted_at);
    } else {
        found.doubt(noted_at);
        count(|c| &mut c.pending_ambiguous);
    }
}

/// Somebody dials the server without having been redirected. What an aborted connect of the same
/// namespace left under the same tuple must not become this connection's.
#[inline(always)]
fn dialled_directly(tuple: &Tuple, netns: u64) {
    let Some(found) = maps::pending(tuple) else {
        return;
    };
    let found = Note(found);
    if found.owner() == netns && !found.is_ambiguous() {
        maps::remove_pending(tuple);
    }
}

/// A value in the map. Programs on other CPUs may write to it as well; each field is one word, and an
/// ambiguous note stays so for as long as it is there.
#[derive(Clone, Copy)]
struct Note(*mut Pending);

impl Note {
    #[inline(always)]
    fn owner(self) -> u64 {
        // SAFETY: a value of the map, which stays while the program runs.
        unsafe { read_volatile(&raw const (*self.0).netns) }
    }

    #[inline(always)]
    fn noted_at(self) -> u64 {
        // SAFETY: as above.
        unsafe { read_volatile(&raw const (*self.0).noted_at) }
    }

    #[inline(always)]
    fn is_ambiguous(self) -> bool {
        // SAFETY: as above.
        unsafe { read_volatile(&raw const (*self.0).ambiguous) != 0 }
    }

    #[inline(always)]
    fn doubt(self, noted_at: u64) {
        // SAFETY: as above.
        unsafe {
            write_volatile(&raw mut (*self.0).ambiguous, 1);
            write_volatile(&raw mut (*self.0).noted_at, noted_at);
        }
    }

    #[inline(always)]
    fn set_original(self, original: &Endpoint, noted_at: u64) {
        // SAFETY: an endpoint consists of three times 8 bytes, and so does the field.
        unsafe {
            let from: *const u64 = from_ref(original).cast();
            let to: *mut u64 = (&raw mut (*self.0).original).cast();
            write_volatile(to, read_volatile(from));
            write_volatile(to.add(1), read_volatile(from.add(1)));
            write_volatile(to.add(2), read_volatile(from.add(2)));
            write_volatile(&raw mut (*self.0).noted_at, noted_at);
        }
    }
}
