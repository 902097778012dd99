//! Culvert on a real Kubernetes cluster: kube-apiserver, kubelets, containerd and kubectl as they are. One cluster serves
//! the whole run; tests take place one after the other (`cargo xtask test --only cluster`). They need root.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics where it stands"
)]

mod clean_up;
mod observers;
mod pods;
mod reach;
mod stage;
mod without_culvert;
