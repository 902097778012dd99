//! The flags by which a server reads what clients say by TLS.

use std::path::PathBuf;

use anyhow::ensure;
use clap::{ArgAction, Args};

use super::ServerArgs;

/// Whether TLS ends at the server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTPS")]
pub struct TerminationArgs {
    /// End TLS at --https-port for clients that name no server by it (SNI), or this one: their requests go to the
    /// kubelets, or HTTPS ports, of the nodes that these name in `Host`
    ///
    /// A client has to show a certificate that the API server would take or a bearer token, and gets what RBAC lets its user have
    /// of nodes/metrics, nodes/stats, nodes/log, nodes/checkpoint; of nodes/pods, nodes/healthz, nodes/configz,
    /// nodes/statusz or, instead of these, nodes/proxy; and of nodes/proxy for everything else. Kubelets are asked as
    /// user tunnel-proxy-client (deploy/kubernetes/overlays/https-terminate). Who names a node is carried to it
    /// undecrypted, as without this.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          hide_default_value = true)]
    pub https_terminate: bool,

    /// File of the CAs whose client certificates make users of the cluster, in PEM, for --https-terminate [default:
    /// those of the API server's own clients, which it publishes in kube-system/extension-apiserver-authentication]
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,

    /// File of the CAs that sign kubelets' certificates, in PEM, for --https-terminate [default: those of the cluster]
    #[arg(long, value_name = "FILE")]
    pub kubelet_ca: Option<PathBuf>,
}

impl ServerArgs {
    pub(super) fn validate_termination(&self) -> anyhow::Result<()> {
        let TerminationArgs {
            https_terminate,
            client_ca,
            kubelet_ca,
        } = &self.termination;
        for (flag, file) in [("--client-ca", client_ca), ("--kubelet-ca", kubelet_ca)] {
            ensure!(
                *https_terminate || file.is_none(),
                "{flag} has no meaning without --https-terminate: add it, or leave {flag} out"
            );
        }
        if !https_terminate {
            return Ok(());
        }
        ensure!(
            self.kubernetes.cluster.kubernetes && !self.kubernetes.relay_only,
            "--https-terminate needs --kubernetes, for the API server says who clients are, and a server that takes \
             agents (no --relay-only): change these, or leave --https-terminate out"
        );
        ensure!(
            self.https_port().is_some(),
            "--https-terminate has no meaning without --https-port: give a port, or leave --https-terminate out"
        );
        Ok(())
    }
}
