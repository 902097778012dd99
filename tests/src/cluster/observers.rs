//! What the programs that watch nodes by their IPs may do: they have certificates of their own, and no more rights than
//! each of them needs.

use serde_json::{Value, json};

use super::{metrics_server, prometheus};

/// (file of the kubeconfig, user)
pub(super) const USERS: [(&str, &str); 2] = [
    (metrics_server::NAME, metrics_server::USER),
    (prometheus::NAME, prometheus::USER),
];

/// A role with these rules, and the user bound to it.
pub(super) fn rights(name: &str, user: &str, rules: &Value) -> [Value; 2] {
    let role = format!("observer:{name}");
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": role }, "rules": rules,
        }),
        binding(
            "ClusterRoleBinding",
            &json!({ "name": role }),
            ("ClusterRole", &role),
            user,
        ),
    ]
}

/// Binds a user to a role, named by kind and name.
pub(super) fn binding(kind: &str, metadata: &Value, role: (&str, &str), user: &str) -> Value {
    let group = "rbac.authorization.k8s.io";
    let (role_kind, role) = role;
    json!({
        "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": metadata,
        "roleRef": { "apiGroup": group, "kind": role_kind, "name": role },
        "subjects": [{ "apiGroup": group, "kind": "User", "name": user }],
    })
}

/// Several objects as one that kubectl takes.
pub(super) fn list(objects: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects })
}
