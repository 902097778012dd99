//! Culvert on a real Kubernetes cluster: kube-apiserver, kubelets, containerd and kubectl as they are. One cluster
//! serves the whole run; tests take place one after the other (`cargo xtask test --only cluster`). They need root.
//! They come in the order of their names: those of `bare` are about a cluster on which Culvert is not installed yet,
//! and `uninstall`, the last that uses it, takes it away.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics where it stands"
)]

mod aftermath;
mod another_tunnel;
mod api;
mod bare;
mod callers;
mod cloud_worker;
mod crowd;
mod dials;
mod flips;
mod forgeries;
mod https;
mod manifests;
mod manual;
mod names;
mod nodes;
mod objects;
mod observers;
mod outages;
mod pods;
mod ports;
mod reach;
mod relays;
mod requests;
mod restarts;
mod rollouts;
mod rotations;
mod second_server;
mod services;
mod source;
mod stage;
mod stalled;
mod streams;
mod termination;
mod thieves;
mod tidying;
mod transfers;
mod tunnelled;
mod uninstall;
mod yurt_tunnel;
