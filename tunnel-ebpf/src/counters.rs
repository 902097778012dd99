//! What the programs count, each on its own CPU.

/// Declares counters once: the struct, whose fields `bpftool` shows, and their sum.
macro_rules! counters {
    ($(#[$about:meta])* $counters:ident { $($(#[$doc:meta])* $name:ident,)+ }) => {
        $(#[$about])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "user", derive(serde::Serialize))]
        pub struct $counters {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl $counters {
            /// Every counter by its name.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }

        impl core::iter::Sum for $counters {
            fn sum<I: Iterator<Item = Self>>(counters: I) -> Self {
                counters.fold(Self::default(), |sum, more| Self {
                    $($name: sum.$name + more.$name,)+
                })
            }
        }
    };
}

counters! {
    /// Events since the maps were created. Every TCP connect in the cgroup adds to exactly one
    /// of the fields from `other_port` to `redirect_failed`.
    Counters {
        /// Connects to a port that is not tunnelled.
        other_port,
        /// Connects on a tunnelled port to an address that is no node's, or not on this port.
        other_address,
        /// Connects to the server's own listener: a client dialled it directly.
        own_listener,
        /// Connects to a node by a socket that carries the mark.
        exempt_mark,
        /// Connects to a node by a socket bound to a device.
        exempt_device,
        /// Connects to a node from a network namespace whose processes are not captured.
        other_client,
        /// Connects refused because only the server's own network namespace may use the port.
        client_refused,
        /// Connects to a node that user space marked as one to leave alone.
        standing_bypass,
        /// Connects refused because user space marked the node so.
        standing_refuse,
        /// Connects that passed because no server listens.
        no_listener_bypass,
        /// Connects refused because no server listens.
        no_listener_refuse,
        /// Connects that passed because the server shows no life.
        stale_heartbeat_bypass,
        /// Connects refused because the server shows no life.
        stale_heartbeat_refuse,
        /// Connects that passed because nothing arrives from their network namespace.
        unreached_bypass,
        /// Connects refused because nothing arrives from their network namespace.
        unreached_refuse,
        /// Connects redirected to the server.
        redirected,
        /// Connects that passed, or were refused where the node wants that, because the kernel had no memory
        /// for their original destination.
        redirect_failed,
        /// Redirected connects whose original destination is noted under their 4-tuple, as no range
        /// serves them.
        redirected_by_tuple,
        /// SYNs to an address that stands for a node, given to the server's listener: one for each connection, and
        /// another each time that it had to be repeated.
        steered,
        /// Connections to such an address that were dropped: the node or port is not tunnelled.
        steer_unknown,
        /// Connections to such an address that were dropped: they came from another machine, or from a
        /// network namespace that may not use the port.
        steer_stranger,
        /// Connections to a redirect address that were dropped: no redirected client opens them.
        steer_unannounced,
        /// Original destinations that could not be noted before the SYN left.
        pending_failed,
        /// Original destinations not noted: a client of another network namespace has an address of the
        /// server's.
        pending_foreign,
        /// Original destinations that clients of two network namespaces noted under one 4-tuple; neither
        /// is trusted.
        pending_ambiguous,
        /// Original destinations handed to the server's accepted socket.
        handed_over,
        /// Accepted connections that no redirected client opened.
        no_original,
        /// Original destinations that stayed pending because the accepted socket had no memory for them.
        handover_failed,
        /// SYNs to the server that had to be repeated.
        syn_lost,
        /// Calls of `getpeername()` that were answered with the original destination.
        peer_shown,
    }
}

counters! {
    /// What became of connects to Services in `services`. Each adds to exactly one of the fields from
    /// `service_redirected` to `service_unread`, and to one of [`Counters`] as any other.
    ServiceCounters {
        /// Connects to a Service that were redirected to the server, for a node among its endpoints.
        service_redirected,
        /// Connects to a Service that were sent to an endpoint that is no tunnelled node.
        service_direct,
        /// Connects to a Service that passed untouched, for kube-proxy to translate.
        service_passed,
        /// Connects to a Service that were refused.
        service_refused,
        /// Connects to a Service of which no endpoint could be read, as it was changing: they passed.
        service_unread,
        /// Connects to a Service whose `getpeername()` shows the endpoint, because the kernel had no memory for what
        /// was dialled.
        service_unnoted,
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, only u64 fields, any bytes are valid.
unsafe impl aya::Pod for Counters {}
#[cfg(feature = "user")]
// SAFETY: `repr(C)`, only u64 fields, any bytes are valid.
unsafe impl aya::Pod for ServiceCounters {}
