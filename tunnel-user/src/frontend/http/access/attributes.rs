//! What a request asks for, in the words of Kubernetes' authorisation: as a kubelet reads its own requests
//! (`pkg/kubelet/server/auth.go` of Kubernetes 1.34), and in two places more strictly.
//!
//! - A path in which a kubelet could see another one than is seen here is refused: the kubelet asks only whether
//!   *this server* may.
//! - Whatever runs something in a container takes `create`. A kubelet goes by the method, and WebSocket begins with
//!   `GET`, so there whoever may read everything may also run everything.

use http::Method;

use crate::{
    frontend::http::refusal::Refusal,
    model::{NodeAccess, NodeName, PodName, Subresource, Verb},
};

/// Paths of kubelets that a pod's namespace and name follow.
const OF_PODS: [&str; 4] = ["exec", "attach", "portForward", "containerLogs"];
/// Paths of kubelets that run something in a container.
const RUNNING: [&str; 4] = ["exec", "attach", "portForward", "run"];
/// What a decoded path may not have in it beyond what is written.
const HIDDEN: [&str; 4] = ["%2e", "%2f", "%5c", "%00"];

/// What is wanted: one verb, on the first of these subresources that the user may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::frontend::http) struct Wanted {
    verb: Verb,
    subresources: &'static [Subresource],
    node: Option<NodeName>,
}

impl Wanted {
    /// Of a kubelet, by what the path asks for. Which node, is not known yet.
    pub(in crate::frontend::http) fn of_kubelet(
        method: &Method,
        path: &str,
    ) -> Result<Self, Refusal> {
        if !is_clear(path) {
            return Err(Refusal::UnclearPath);
        }
        let first = first_segment(path);
        let verb = verb(method)?;
        Ok(Self {
            verb: if RUNNING.contains(&first) {
                Verb::Create
            } else {
                verb
            },
            subresources: subresources(first),
            node: None,
        })
    }

    /// Of whatever else listens on a node.
    pub(in crate::frontend::http) fn of_service(method: &Method) -> Result<Self, Refusal> {
        Ok(Self {
            verb: verb(method)?,
            subresources: &[Subresource::Proxy],
            node: None,
        })
    }

    /// The same of this node.
    pub(in crate::frontend::http) fn of_node(self, node: NodeName) -> Self {
        let node = Some(node);
        Self { node, ..self }
    }

    /// In the order in which they are asked.
    pub(super) fn questions(&self) -> impl Iterator<Item = NodeAccess> + '_ {
        self.subresources.iter().map(|subresource| NodeAccess {
            verb: self.verb,
            subresource: *subresource,
            node: self.node.clone(),
        })
    }

    /// The one that is asked first: what to grant.
    pub(in crate::frontend::http) fn first(&self) -> NodeAccess {
        let mut questions = self.questions();
        questions.next().expect("each path has a subresource")
    }
}

/// The pod that a path of a kubelet is about.
pub(in crate::frontend::http) fn pod_in(path: &str) -> Option<PodName> {
    let mut segments = path.strip_prefix('/')?.split('/');
    let (first, namespace, name) = (segments.next()?, segments.next()?, segments.next()?);
    OF_PODS
        .contains(&first)
        .then(|| PodName::new(namespace, name))
        .flatten()
}

/// Whether every reader sees the same path: no segment that leads elsewhere, nothing hidden in an escape, and no escape
/// at all in what decides.
fn is_clear(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    let lower = rest.to_ascii_lowercase();
    let hides = HIDDEN.iter().any(|hidden| lower.contains(hidden)) || rest.contains('\\');
    let segments = rest.strip_suffix('/').unwrap_or(rest).split('/');
    let mut leads_elsewhere = segments.map(|segment| match segment {
        "" => !rest.is_empty(),
        segment => segment == "." || segment == "..",
    });
    !hides && !leads_elsewhere.any(|elsewhere| elsewhere) && !first_segment(path).contains('%')
}

fn first_segment(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/').next().unwrap_or_default()
}

fn subresources(first: &str) -> &'static [Subresource] {
    match first {
        "stats" => &[Subresource::Stats],
        "metrics" => &[Subresource::Metrics],
        "logs" => &[Subresource::Log],
        "checkpoint" => &[Subresource::Checkpoint],
        "pods" | "runningpods" => &[Subresource::Pods, Subresource::Proxy],
        "healthz" => &[Subresource::Healthz, Subresource::Proxy],
        "configz" => &[Subresource::Configz, Subresource::Proxy],
        "statusz" => &[Subresource::Statusz, Subresource::Proxy],
        _ => &[Subresource::Proxy],
    }
}

fn verb(method: &Method) -> Result<Verb, Refusal> {
    match *method {
        Method::GET | Method::HEAD => Ok(Verb::Get),
        Method::POST => Ok(Verb::Create),
        Method::PUT => Ok(Verb::Update),
        Method::PATCH => Ok(Verb::Patch),
        Method::DELETE => Ok(Verb::Delete),
        _ => Err(Refusal::Method),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(method: &str, path: &str) -> Result<String, Refusal> {
        let wanted = Wanted::of_kubelet(&method.parse().unwrap(), path)?;
        let asked: Vec<_> = wanted
            .questions()
            .map(|access| format!("{} {}", access.verb.as_str(), access.subresource.as_str()))
            .collect();
        Ok(asked.join(", "))
    }

    #[test]
    fn a_path_takes_the_permission_that_its_kubelet_would_ask_for() {
        for (method, path, asked) in [
            ("GET", "/metrics", "get metrics"),
            ("HEAD", "/metrics/cadvisor", "get metrics"),
            ("GET", "/stats/summary", "get stats"),
            ("GET", "/logs/kube-proxy%20old.log", "get log"),
            ("GET", "/logs/", "get log"),
            ("POST", "/checkpoint/ns/pod/c", "create checkpoint"),
            ("GET", "/pods", "get pods, get proxy"),
            ("GET", "/runningpods/", "get pods, get proxy"),
            ("GET", "/healthz/ping", "get healthz, get proxy"),
            ("GET", "/configz", "get configz, get proxy"),
            ("GET", "/statusz", "get statusz, get proxy"),
            ("GET", "/containerLogs/ns/pod/c", "get proxy"),
            ("PUT", "/debug/flags/v", "update proxy"),
            ("DELETE", "/", "delete proxy"),
            // Nothing but the first name counts, as it is written.
            ("GET", "/metricsx", "get proxy"),
            ("GET", "/Metrics", "get proxy"),
            ("GET", "/exec2/metrics", "get proxy"),
        ] {
            assert_eq!(
                wanted(method, path).as_deref(),
                Ok(asked),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn to_run_something_takes_create_whatever_the_method() {
        for path in [
            "/exec/ns/pod/c",
            "/attach/ns/pod/c",
            "/portForward/ns/pod",
            "/run/ns/pod/c",
        ] {
            for method in ["GET", "POST"] {
                assert_eq!(
                    wanted(method, path).as_deref(),
                    Ok("create proxy"),
                    "{method} {path}"
                );
            }
        }
    }

    #[test]
    fn a_path_that_readers_could_read_differently_is_refused() {
        for path in [
            "/metrics/../exec/ns/pod/c",
            "/metrics/./x",
            "/metrics/%2e%2E/exec/ns/pod/c",
            "/metrics%2f..%2Fexec",
            "/metrics/..%5cexec",
            "/metrics/..\\exec",
            "/metrics/x%00",
            "//metrics",
            "/metrics//exec",
            "/%6detrics",
            "/exec%2Fns",
            "*",
            "",
            "metrics",
        ] {
            assert_eq!(wanted("GET", path), Err(Refusal::UnclearPath), "{path}");
        }
        for method in ["OPTIONS", "TRACE", "PROPFIND"] {
            assert_eq!(wanted(method, "/metrics"), Err(Refusal::Method));
        }
    }

    #[test]
    fn four_paths_name_a_pod() {
        for first in OF_PODS {
            let pod = pod_in(&format!("/{first}/kube-system/coredns-1/coredns")).unwrap();
            assert_eq!(pod.to_string(), "kube-system/coredns-1");
        }
        for path in [
            "/run/ns/pod/c",
            "/exec/ns",
            "/exec",
            "/exec//pod/c",
            "/exec/NS/pod/c",
            "/exec/ns/po%64/c",
            "/exec/../pod/c",
            "/x/exec/ns/pod",
            "exec/ns/pod",
        ] {
            assert_eq!(pod_in(path), None, "{path}");
        }
    }
}
