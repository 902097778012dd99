//! kubectl as the administrator, and waiting for what it says.

use std::ffi::OsStr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Directory, Machine};
use crate::{Launch, programs::Kubernetes, until};

/// A kubectl costs a tenth of a second of a processor: between two looks the cluster gets on with its work.
const PAUSE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_mins(1);

/// A `kubectl` on `machine` with the administrator's kubeconfig; it still lacks its arguments.
pub(super) fn launch(directory: &Directory, machine: &Machine) -> Result<Launch> {
    let kubectl = Kubernetes::chosen()?.program("kubectl")?;
    Ok(machine
        .launch(kubectl)
        .arg("--kubeconfig")
        .arg(directory.kubeconfig("admin"))
        .arg("--cache-dir")
        .arg(directory.root().join("kubectl")))
}

/// Runs it to its end; what it says on standard error is part of the error.
pub(super) fn run<A: AsRef<OsStr>>(
    kubectl: &Launch,
    args: impl IntoIterator<Item = A>,
) -> Result<String> {
    kubectl.clone().args(args).start()?.succeed(PATIENCE)
}

/// Runs `kubectl get` and reads its JSON.
pub(super) fn get(kubectl: &Launch, words: &str) -> Result<Value> {
    let said = run(kubectl, format!("get {words} -o json").split_whitespace())?;
    serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
}

/// Asks kubectl until there is an answer.
pub fn wait_until<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    until(what, patience, || {
        let answer = ask();
        if !matches!(answer, Ok(Some(_))) {
            thread::sleep(PAUSE);
        }
        answer
    })
}
