//! The `ConfigMap` of the ports over time.
//!
//! Only an edit takes ports away. A `ConfigMap` that is gone, by accident or with the namespace of
//! an old installation, leaves the last ports tunnelled and is a problem until it is back; a fresh
//! one with empty values ends them on purpose.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::{ResourceExt as _, runtime::watcher::Event};
use serde::{Deserialize, Serialize};

use crate::kubernetes::ObjectName;

/// What a `ConfigMap` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PortsConfig {
    pub(super) uid: Option<String>,
    pub(super) data: BTreeMap<String, String>,
}

/// The last `ConfigMap`, and whether it is still there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LastConfig {
    pub(super) last: Option<PortsConfig>,
    pub(super) gone: bool,
    /// Whether the API server has said so, or only the disk.
    pub(super) heard: bool,
    listed: Option<PortsConfig>,
}

impl LastConfig {
    pub(super) fn saved(last: Option<PortsConfig>) -> Self {
        Self {
            last,
            ..Self::default()
        }
    }

    /// Takes an event of the watch on that one object; whether anything has changed.
    pub(super) fn apply(&mut self, event: Event<ConfigMap>) -> bool {
        match event {
            Event::Init => {
                self.listed = None;
                false
            }
            Event::InitApply(object) => {
                self.listed = Some(object.into());
                false
            }
            Event::InitDone => {
                let listed = self.listed.take();
                self.become_known(listed)
            }
            Event::Apply(object) => self.become_known(Some(object.into())),
            Event::Delete(_) => self.become_known(None),
        }
    }

    /// The object as Events name it.
    pub(super) fn reference(&self, name: &ObjectName) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("ConfigMap".to_owned()),
            namespace: Some(name.namespace.clone()),
            name: Some(name.name.clone()),
            uid: self.last.as_ref().and_then(|last| last.uid.clone()),
            ..ObjectReference::default()
        }
    }

    fn become_known(&mut self, now: Option<PortsConfig>) -> bool {
        let before = (self.heard, self.gone, self.last.clone());
        self.heard = true;
        self.gone = now.is_none() && self.last.is_some();
        if now.is_some() {
            self.last = now;
        }
        before != (self.heard, self.gone, self.last.clone())
    }
}

impl From<ConfigMap> for PortsConfig {
    fn from(object: ConfigMap) -> Self {
        Self {
            uid: object.uid(),
            data: object.data.unwrap_or_default(),
        }
    }
}
