//! The context of the connect and getpeername programs.
//!
//! Every access is volatile: LLVM would otherwise merge neighbouring ones into a width that the
//! verifier does not allow on a context.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::bpf_get_netns_cookie,
    programs::SockAddrContext,
};
use tunnel_ebpf::{Address, Endpoint};

const IPPROTO_TCP: u32 = 6;

pub(crate) struct SockAddr<'a> {
    ctx: &'a SockAddrContext,
}

impl<'a> SockAddr<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a SockAddrContext) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.ctx.sock_addr
    }

    #[cfg(feature = "log")]
    #[inline(always)]
    pub(crate) fn context(&self) -> &SockAddrContext {
        self.ctx
    }

    #[inline(always)]
    pub(crate) fn is_tcp(&self) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { read_volatile(&raw const (*self.raw()).protocol) == IPPROTO_TCP }
    }

    #[inline(always)]
    pub(crate) fn socket(&self) -> *mut bpf_sock {
        // SAFETY: the kernel passes a valid context; `sk` is never null in these programs.
        unsafe { (*self.raw()).__bindgen_anon_1.sk }
    }

    /// The network namespace of the socket, as `SO_NETNS_COOKIE` names it.
    #[inline(always)]
    pub(crate) fn netns(&self) -> u64 {
        // SAFETY: a helper that takes the context.
        unsafe { bpf_get_netns_cookie(self.raw().cast()) }
    }

    /// The mark that the socket carries (`SO_MARK`).
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: the verifier knows `sk` as a valid socket.
        unsafe { read_volatile(&raw const (*self.socket()).mark) }
    }

    /// Whether the socket is bound to a device: packets to the server would leave through it.
    #[inline(always)]
    pub(crate) fn is_bound_to_device(&self) -> bool {
        // SAFETY: the verifier knows `sk` as a valid socket.
        unsafe { read_volatile(&raw const (*self.socket()).bound_dev_if) != 0 }
    }

    #[inline(always)]
    pub(crate) fn v4(&self) -> Endpoint {
        // SAFETY: the kernel passes a valid context.
        let word = unsafe { read_volatile(&raw const (*self.raw()).user_ip4) };
        Endpoint::new(Address::from_v4_word(word), self.port())
    }

    #[inline(always)]
    pub(crate) fn v6(&self) -> Endpoint {
        let word = |i: usize| {
            // SAFETY: the kernel passes a valid context, and `i` is a constant below 4.
            unsafe { read_volatile((&raw const (*self.raw()).user_ip6).cast::<u32>().add(i)) }
        };
        Endpoint::new(
            Address::from_words([word(0), word(1), word(2), word(3)]),
            self.port(),
        )
    }

    #[inline(always)]
    pub(crate) fn set_v4(&self, to: &Endpoint) {
        let word = to.address.words()[3];
        // SAFETY: the kernel passes a valid context.
        unsafe { write_volatile(&raw mut (*self.raw()).user_ip4, word) };
        self.set_port(to.port());
    }

    #[inline(always)]
    pub(crate) fn set_v6(&self, to: &Endpoint) {
        let words = to.address.words();
        let set = |i: usize| {
            // SAFETY: the kernel passes a valid context, and `i` is a constant below 4.
            unsafe {
                let field = (&raw mut (*self.raw()).user_ip6).cast::<u32>().add(i);
                write_volatile(field, words[i]);
            }
        };
        set(0);
        set(1);
        set(2);
        set(3);
        self.set_port(to.port());
    }

    /// The context holds the port's two octets in network order in the lower half of a word.
    #[inline(always)]
    fn port(&self) -> u16 {
        // SAFETY: the kernel passes a valid context.
        let raw = unsafe { read_volatile(&raw const (*self.raw()).user_port) };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the upper half is always 0"
        )]
        u16::from_be(raw as u16)
    }

    #[inline(always)]
    fn set_port(&self, port: u16) {
        // SAFETY: the kernel passes a valid context.
        unsafe { write_volatile(&raw mut (*self.raw()).user_port, u32::from(port.to_be())) };
    }
}
