//! Who owns which field of a Service's ports: what server-side apply goes by, see
//! <https://kubernetes.io/docs/reference/using-api/server-side-apply/>.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry};
use serde_json::Value;

use super::FIELD_MANAGER;
use crate::model::{TunnelPort, printable_up_to};

/// The longest name of a manager that is told.
const LONGEST_MANAGER: usize = 64;

/// The TCP ports of a Service, by what managers have written there.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    /// Ports that we have applied.
    pub(super) ours: BTreeSet<TunnelPort>,
    /// Fields of ports that others have written, with their names.
    others: BTreeMap<(TunnelPort, String), BTreeSet<String>>,
}

impl Ownership {
    pub(super) fn of(service: &Service) -> Self {
        let mut ownership = Self::default();
        for entry in service.metadata.managed_fields.iter().flatten() {
            ownership.read(entry);
        }
        ownership
    }

    /// Who else has written any of these fields of the port.
    pub(super) fn others(&self, port: TunnelPort, fields: &[&str]) -> BTreeSet<&str> {
        let of_field = |field: &&str| self.others.get(&(port, format!("f:{field}")));
        let managers = fields.iter().filter_map(of_field).flatten();
        managers.map(String::as_str).collect()
    }

    /// Whether the port goes when we no longer apply it.
    pub(super) fn is_only_ours(&self, port: TunnelPort) -> bool {
        let others = self.others.keys().any(|(other, _)| *other == port);
        self.ours.contains(&port) && !others
    }

    fn read(&mut self, entry: &ManagedFieldsEntry) {
        let fields = entry
            .fields_v1
            .as_ref()
            .map(|fields| &fields.0["f:spec"]["f:ports"]);
        let ports = fields.and_then(Value::as_object).into_iter().flatten();
        let is_ours = entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply");
        let manager = entry.manager.as_deref().unwrap_or("unknown");
        for (key, fields) in ports {
            let Some(port) = tcp_port(key) else { continue };
            if is_ours {
                self.ours.insert(port);
                continue;
            }
            for field in fields
                .as_object()
                .into_iter()
                .flatten()
                .map(|(field, _)| field)
            {
                let managers = self.others.entry((port, field.clone())).or_default();
                managers.insert(printable_up_to(manager, LONGEST_MANAGER));
            }
        }
    }
}

/// The port of a key such as `k:{"port":9100,"protocol":"TCP"}`.
fn tcp_port(key: &str) -> Option<TunnelPort> {
    let key: Value = serde_json::from_str(key.strip_prefix("k:")?).ok()?;
    let port = u16::try_from(key["port"].as_u64()?).ok()?;
    TunnelPort::new(port).filter(|_| key["protocol"] == "TCP")
}
