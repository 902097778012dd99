//! TCP events of redirected connections, at both ends.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_RTO_CB, BPF_SOCK_OPS_TCP_CONNECT_CB,
    },
    programs::SockOpsContext,
};
use tunnel_ebpf::{Config, Endpoint};

use crate::{maps, namespaces, notes, ops::Ops};

#[inline(always)]
pub(crate) fn handle(ctx: &SockOpsContext) {
    let ops = Ops(ctx.ops);
    let event = ctx.op();
    if !matches!(
        event,
        BPF_SOCK_OPS_TCP_CONNECT_CB
            | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
            | BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
            | BPF_SOCK_OPS_RTO_CB
    ) {
        return;
    }
    let Some(config) = maps::settings() else {
        return;
    };
    match event {
        BPF_SOCK_OPS_TCP_CONNECT_CB => {
            if is_in_shared_range(&ops.remote(), config) {
                namespaces::leaves(ops.netns());
                ops.watch_for_loss();
            } else if notes::connecting(&ops, config) {
                ops.watch_for_loss();
            }
        }
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => notes::accepted(&ops, config),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => established(&ops, config),
        _ => {
            if ops.is_syn_sent() {
                namespaces::lost(ops.netns());
            }
        }
    }
}

/// A client's end. The server's own namespace is not in question.
#[inline(always)]
fn established(ops: &Ops, config: &Config) {
    let remote = ops.remote();
    let is_ours = is_in_shared_range(&remote, config)
        || remote.port() == config.port
            && (remote.address == config.redirect_v4 || remote.address == config.redirect_v6);
    if is_ours {
        namespaces::arrived(ops.netns());
    }
}

/// A range that other namespaces than the server's are sent to as well.
#[inline(always)]
fn is_in_shared_range(remote: &Endpoint, config: &Config) -> bool {
    let ranges = &config.ranges;
    ranges.pods.slot(&remote.address).is_some() || ranges.v6.slot(&remote.address).is_some()
}
