//! One object of the cluster, as its watch tells it.

use std::fmt::Debug;

use futures_util::{StreamExt as _, stream::BoxStream};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
    runtime::watcher::Event,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::Problem;
use crate::kubernetes::{
    ObjectName,
    services::Watched,
    watch::{Scope, WatchEvent, WatchLogger, Watcher, follow},
};

/// An object, and whether it can be followed.
pub(super) struct Followed<K> {
    api: Api<K>,
    watch: BoxStream<'static, WatchEvent<K>>,
    watch_logger: WatchLogger,
    name: ObjectName,
    object: Watched<K>,
    lost: Option<String>,
}

impl<K> Followed<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    /// `what` names it in the log.
    pub(super) fn new(client: &Client, name: &ObjectName, what: &'static str) -> Self {
        let api: Api<K> = Api::namespaced(client.clone(), &name.namespace);
        Self {
            watch: follow(
                api.clone(),
                &Scope::Named(name.name.clone()),
                Watcher::Server,
            ),
            api,
            watch_logger: WatchLogger::of(what),
            name: name.clone(),
            object: Watched::default(),
            lost: None,
        }
    }

    /// Resolves when something was told; loses nothing when it is given up.
    pub(super) async fn hear(&mut self) {
        if let Some(watch_event) = self.watch.next().await {
            self.lost = match &watch_event {
                WatchEvent::Lost(error) => Some(error.clone()),
                WatchEvent::Event(_) | WatchEvent::Back => None,
            };
            if let Some(event) = self.watch_logger.tell(watch_event) {
                self.object.apply(event);
            }
        }
    }

    /// Applies these fields of it, and takes note of the object as the API server has it then.
    pub(super) async fn apply(&mut self, fields: Value, params: &PatchParams) -> kube::Result<()> {
        let patch = Patch::Apply(fields);
        let written = self.api.patch(&self.name.name, params, &patch).await?;
        self.object.apply(Event::Apply(written));
        Ok(())
    }

    /// Whether it is known if it exists.
    pub(super) fn is_known(&self) -> bool {
        self.object.is_listed()
    }

    pub(super) fn get(&self) -> Option<&K> {
        self.object.get()
    }

    /// Why it has never been known, where that is the API server's word.
    pub(super) fn trouble(&self) -> Option<Problem> {
        let error = self.lost.clone().filter(|_| !self.is_known())?;
        Some(Problem::Unreadable(self.name.clone(), error))
    }
}
