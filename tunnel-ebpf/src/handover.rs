//! Hands the original destination from the client's socket to the server's accepted one.
//!
//! `TCP_CONNECT_CB` runs with the source port chosen and before the SYN exists; so the entry is
//! there before anything can be accepted, TCP Fast Open included. `PASSIVE_ESTABLISHED_CB` runs
//! with the accepted socket locked; `accept()` takes the same lock.

use core::{ffi::c_void, ptr::read_volatile};

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops},
    programs::SockOpsContext,
};
use tunnel_ebpf::{Address, Config, Endpoint, Tuple};

use crate::{count::count, maps};

const AF_INET: u32 = 2;

#[inline(always)]
pub(crate) fn handle(ctx: &SockOpsContext) {
    let ops = Ops(ctx.ops);
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(&ops),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&ops),
        _ => {}
    }
}

/// A SYN is about to leave.
#[inline(always)]
fn connecting(ops: &Ops) {
    let Some(socket) = ops.socket() else { return };
    let remote_port = ops.remote_port();
    match maps::client_dst_of(socket) {
        Some(dst) if dst.redirect.port() == remote_port => {
            let tuple = ops.tuple_of_client();
            if dst.redirect.address != tuple.server.address {
                return;
            }
            let original = dst.original;
            if maps::insert_pending(&tuple, &original).is_err() {
                count(|c| &mut c.pending_failed);
            }
        }
        // Somebody dials the server directly. An entry that an aborted connect left under the same
        // tuple must not become this connection's.
        _ => {
            if is_own_port(remote_port) {
                maps::remove_pending(&ops.tuple_of_client());
            }
        }
    }
}

/// A connection is about to become acceptable.
#[inline(always)]
fn accepted(ops: &Ops) {
    if !is_own_port(ops.local_port()) {
        return;
    }
    let tuple = ops.tuple_of_server();
    let Some(original) = maps::pending(&tuple) else {
        count(|c| &mut c.no_original);
        return;
    };
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
fn is_own_port(port: u16) -> bool {
    matches!(maps::settings(), Some(Config { port: own, .. }) if *own == port)
}

struct Ops(*mut bpf_sock_ops);

impl Ops {
    #[inline(always)]
    fn socket(&self) -> Option<*mut c_void> {
        // SAFETY: the kernel passes a valid context.
        let socket: *mut c_void = unsafe { (*self.0).__bindgen_anon_2.sk }.cast();
        (!socket.is_null()).then_some(socket)
    }

    #[inline(always)]
    fn tuple_of_client(&self) -> Tuple {
        let (local, remote) = self.ends();
        Tuple {
            client: local,
            server: remote,
        }
    }

    #[inline(always)]
    fn tuple_of_server(&self) -> Tuple {
        let (local, remote) = self.ends();
        Tuple {
            client: remote,
            server: local,
        }
    }

    #[inline(always)]
    fn ends(&self) -> (Endpoint, Endpoint) {
        let (local, remote) = self.addresses();
        (
            Endpoint::new(local, self.local_port()),
            Endpoint::new(remote, self.remote_port()),
        )
    }

    /// The addresses, local first. An IPv6 socket whose peer is v4-mapped has IPv4 on the wire.
    #[inline(always)]
    fn addresses(&self) -> (Address, Address) {
        // SAFETY: the kernel passes a valid context.
        let family = unsafe { read_volatile(&raw const (*self.0).family) };
        if family != AF_INET {
            let remote = self.remote_v6();
            if !remote.is_v4() {
                return (self.local_v6(), remote);
            }
        }
        // SAFETY: the kernel passes a valid context.
        let (local, remote) = unsafe {
            (
                read_volatile(&raw const (*self.0).local_ip4),
                read_volatile(&raw const (*self.0).remote_ip4),
            )
        };
        (Address::from_v4_word(local), Address::from_v4_word(remote))
    }

    #[inline(always)]
    fn remote_v6(&self) -> Address {
        let word = |i: usize| {
            // SAFETY: the kernel passes a valid context, and `i` is a constant below 4.
            unsafe { read_volatile((&raw const (*self.0).remote_ip6).cast::<u32>().add(i)) }
        };
        Address::from_words([word(0), word(1), word(2), word(3)])
    }

    #[inline(always)]
    fn local_v6(&self) -> Address {
        let word = |i: usize| {
            // SAFETY: the kernel passes a valid context, and `i` is a constant below 4.
            unsafe { read_volatile((&raw const (*self.0).local_ip6).cast::<u32>().add(i)) }
        };
        Address::from_words([word(0), word(1), word(2), word(3)])
    }

    /// The context holds the local port in host order.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a port fits, the field is merely wide"
    )]
    fn local_port(&self) -> u16 {
        // SAFETY: the kernel passes a valid context.
        unsafe { read_volatile(&raw const (*self.0).local_port) as u16 }
    }

    /// The context holds the remote port in network order, as a whole word.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a port fits, the field is merely wide"
    )]
    fn remote_port(&self) -> u16 {
        // SAFETY: the kernel passes a valid context.
        u32::from_be(unsafe { read_volatile(&raw const (*self.0).remote_port) }) as u16
    }
}
