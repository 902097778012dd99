//! For tests that ask the API server themselves: from this process, in the control plane's network, with objects of a
//! namespace of their own.

use std::fmt::Debug;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;
use tunnel_user::kubernetes::Access;

use crate::stage::{PATIENCE, cluster};

/// A namespace of a test, gone with it.
pub(crate) struct Place {
    pub(crate) namespace: String,
}

impl Place {
    pub(crate) fn new(namespace: &str) -> Self {
        cluster()
            .kubectl(["create", "namespace", namespace])
            .unwrap();
        Self {
            namespace: namespace.to_owned(),
        }
    }

    /// Creates or changes an object of this namespace.
    pub(crate) fn apply(&self, kind: &str, name: &str, mut object: Value) {
        let file = cluster().directory().root().join(format!("{name}.json"));
        object["kind"] = kind.into();
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = self.namespace.as_str().into();
        std::fs::write(&file, object.to_string()).unwrap();
        cluster()
            .kubectl(["apply", "-f", file.to_str().unwrap()])
            .unwrap();
    }

    pub(crate) fn delete(&self, what: &str) {
        let words = format!("delete {what} -n {}", self.namespace);
        cluster().kubectl(words.split(' ')).unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The cluster may be in whatever state the test left it in.
        let _ = cluster().kubectl(["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

/// Runs in the control plane's network, where the API server is.
pub(crate) fn in_control_plane<T: Send>(work: impl Future<Output = T> + Send) -> T {
    let control = cluster().lab().control();
    control.run(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        runtime.unwrap().block_on(work)
    })
}

pub(crate) async fn access() -> Access {
    let kubeconfig = cluster().directory().kubeconfig("admin");
    let (access, _files) = Access::new(Some(&kubeconfig), None).await.unwrap();
    access
}

pub(crate) async fn until<T: Debug>(
    what: &str,
    values: &mut watch::Receiver<T>,
    wanted: impl Fn(&T) -> bool,
) {
    let seen = timeout(PATIENCE, values.wait_for(wanted))
        .await
        .map(|seen| drop(seen.unwrap()));
    assert!(seen.is_ok(), "{what}: {:?}", values.borrow());
}
