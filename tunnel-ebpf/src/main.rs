//! The redirect's kernel programs. Entry points only turn a decision into the kernel's verdict.
//!
//! ```text
//!  client: connect() -> connect4/6: the address becomes the one that stands for the node
//!  server: SYN -> steer: a connection to such an address goes to the server's listener
//!          accept(), getsockname() tells the node
//! ```
//! Where no range serves the client, the original destination is noted:
//! ```text
//!  client: connect() -> connect4/6: original destination into the client socket, address rewritten
//!          SYN leaves -> handover (TCP_CONNECT_CB): 4-tuple -> original destination
//!  server: ACK or TFO -> handover (PASSIVE_ESTABLISHED_CB): moved into the accepted socket
//!          accept(), reads the original destination by file descriptor
//! ```
//! What is dialled may also be a Service with nodes among its endpoints: one of them is chosen first, and it goes on as
//! if that had been dialled.
//!
//! On any doubt a connect passes untouched.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "helpers and contexts are raw pointers, which the verifier checks"
)]
#![expect(
    clippy::inline_always,
    reason = "a call would pass pointers that the verifier loses track of"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the entry points' form is the macros'"
)]

mod bind;
mod client;
mod connect;
mod count;
mod destination;
mod gate;
mod handover;
mod maps;
mod namespaces;
mod notes;
mod ops;
mod peername;
mod services;
mod sockaddr;
mod steer;
mod trace;

use aya_ebpf::{
    Global,
    bindings::sk_action::{SK_DROP, SK_PASS},
    helpers::generated::bpf_set_retval,
    macros::{cgroup_sock_addr, sk_lookup, sock_ops},
    programs::{SkLookupContext, SockAddrContext, SockOpsContext},
};

use crate::{
    connect::{Decision, decide},
    sockaddr::SockAddr,
};

const PROCEED: i32 = 1;
const FAIL: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// Cleared by the loader on kernels without `bpf_set_retval`.
#[unsafe(no_mangle)]
static CAN_SET_RETVAL: Global<u8> = Global::new(1);

/// Cleared by the loader on kernels that do not tell programs of TCP events their network namespace.
#[unsafe(no_mangle)]
static CAN_NETNS_COOKIE: Global<u8> = Global::new(1);

/// Cleared by the loader on kernels that do not tell socket lookups the interface of a packet.
#[unsafe(no_mangle)]
static CAN_INGRESS: Global<u8> = Global::new(1);

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    let address = SockAddr::new(&ctx);
    let dialled = address.v4();
    let mut to = dialled;
    match decide(&address, &dialled, &mut to) {
        Decision::Redirect => {
            address.set_v4(&to);
            PROCEED
        }
        Decision::Pass => PROCEED,
        Decision::Refuse => refuse(),
    }
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    let address = SockAddr::new(&ctx);
    let dialled = address.v6();
    let mut to = dialled;
    match decide(&address, &dialled, &mut to) {
        Decision::Redirect => {
            address.set_v6(&to);
            PROCEED
        }
        Decision::Pass => PROCEED,
        Decision::Refuse => refuse(),
    }
}

#[cgroup_sock_addr(bind4)]
fn bind4(ctx: SockAddrContext) -> i32 {
    let address = SockAddr::new(&ctx);
    permit(!bind::is_refused(&address, &address.v4()))
}

#[cgroup_sock_addr(bind6)]
fn bind6(ctx: SockAddrContext) -> i32 {
    let address = SockAddr::new(&ctx);
    permit(!bind::is_refused(&address, &address.v6()))
}

#[inline(always)]
fn permit(permitted: bool) -> i32 {
    if permitted { PROCEED } else { FAIL }
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    let address = SockAddr::new(&ctx);
    if let Some(original) = peername::original(&address, &address.v4()) {
        address.set_v4(&original);
    }
    PROCEED
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    let address = SockAddr::new(&ctx);
    if let Some(original) = peername::original(&address, &address.v6()) {
        address.set_v6(&original);
    }
    PROCEED
}

#[sock_ops]
fn handover(ctx: SockOpsContext) -> u32 {
    handover::handle(&ctx);
    1
}

#[sk_lookup]
fn steer(ctx: SkLookupContext) -> u32 {
    match steer::decide(&ctx) {
        steer::Verdict::Pass => SK_PASS,
        steer::Verdict::Drop => SK_DROP,
    }
}

#[inline(always)]
fn can_netns_cookie() -> bool {
    CAN_NETNS_COOKIE.load() != 0
}

#[inline(always)]
fn can_ingress() -> bool {
    CAN_INGRESS.load() != 0
}

#[inline(always)]
fn refuse() -> i32 {
    if CAN_SET_RETVAL.load() != 0 {
        // SAFETY: a helper without pointers; the loader clears the flag where it does not exist.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    FAIL
}

/// Required by `no_std`; the verifier would not accept a program that can reach it.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
