//! The context of the program of TCP events.

use core::{ffi::c_void, ptr::read_volatile};

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_RTO_CB_FLAG, bpf_sock_ops},
    helpers::generated::{bpf_get_netns_cookie, bpf_sock_ops_cb_flags_set},
};
use tunnel_ebpf::{Address, Endpoint, Tuple};

use crate::can_netns_cookie;

const AF_INET: u32 = 2;
/// `TCP_SYN_SENT` of [`include/net/tcp_states.h`].
///
/// [`include/net/tcp_states.h`]: https://github.com/torvalds/linux/blob/v6.12/include/net/tcp_states.h
const SYN_SENT: u32 = 2;

pub(crate) struct Ops(pub(crate) *mut bpf_sock_ops);

impl Ops {
    /// The network namespace of the socket, as `SO_NETNS_COOKIE` names it; 0 where the kernel does not
    /// tell.
    #[inline(always)]
    pub(crate) fn netns(&self) -> u64 {
        if !can_netns_cookie() {
            return 0;
        }
        // SAFETY: a helper that takes the context.
        unsafe { bpf_get_netns_cookie(self.0.cast()) }
    }

    #[inline(always)]
    pub(crate) fn is_syn_sent(&self) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { read_volatile(&raw const (*self.0).state) == SYN_SENT }
    }

    /// Asks to be told when a retransmission timer of this socket runs out. It is never taken back: another
    /// program may have asked as well.
    #[inline(always)]
    pub(crate) fn watch_for_loss(&self) {
        // SAFETY: the kernel passes a valid context.
        let others = unsafe { read_volatile(&raw const (*self.0).bpf_sock_ops_cb_flags) };
        let flags = others | BPF_SOCK_OPS_RTO_CB_FLAG;
        // SAFETY: a helper that takes the context.
        unsafe { bpf_sock_ops_cb_flags_set(self.0, flags.cast_signed()) };
    }

    /// The other end. An IPv6 socket whose peer is v4-mapped has IPv4 on the wire.
    #[inline(always)]
    pub(crate) fn remote(&self) -> Endpoint {
        Endpoint::new(self.addresses().1, self.remote_port())
    }

    #[inline(always)]
    pub(crate) fn socket(&self) -> Option<*mut c_void> {
        // SAFETY: the kernel passes a valid context.
        let socket: *mut c_void = unsafe { (*self.0).__bindgen_anon_2.sk }.cast();
        (!socket.is_null()).then_some(socket)
    }

    #[inline(always)]
    pub(crate) fn tuple_of_client(&self) -> Tuple {
        let (local, remote) = self.ends();
        Tuple {
            client: local,
            server: remote,
        }
    }

    #[inline(always)]
    pub(crate) fn tuple_of_server(&self) -> Tuple {
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
    pub(crate) fn local_port(&self) -> u16 {
        // SAFETY: the kernel passes a valid context.
        unsafe { read_volatile(&raw const (*self.0).local_port) as u16 }
    }

    /// The context holds the remote port in network order, as a whole word.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a port fits, the field is merely wide"
    )]
    pub(crate) fn remote_port(&self) -> u16 {
        // SAFETY: the kernel passes a valid context.
        u32::from_be(unsafe { read_volatile(&raw const (*self.0).remote_port) }) as u16
    }
}
