//! What the API server says of who asks for something of a node, and where a pod is. Each answer is asked for when it
//! is needed: no object is followed for it, and none is listed.

use futures_util::future::BoxFuture;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::Pod,
};
use kube::{Api, Client, api::PostParams};

use super::api_error::{describe, is_status};
use crate::model::{NodeAccess, NodeName, PodName, ReviewError, Reviews, User};

/// Asks the API server. Needs `create` of `tokenreviews` and `subjectaccessreviews`, and `get` of `pods`.
pub struct ApiReviews(Client);

impl ApiReviews {
    /// Asks nothing yet.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    async fn token(&self, token: &str) -> kube::Result<Option<User>> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let reviews = Api::all(self.0.clone());
        let answer: TokenReview = reviews.create(&PostParams::default(), &review).await?;
        let status = answer.status.unwrap_or_default();
        let is_good = status.authenticated == Some(true);
        Ok(status.user.filter(|_| is_good).and_then(user))
    }

    async fn access(&self, user: &User, access: &NodeAccess) -> kube::Result<bool> {
        let review = SubjectAccessReview {
            spec: spec(user, access),
            ..SubjectAccessReview::default()
        };
        let reviews = Api::all(self.0.clone());
        let answer: SubjectAccessReview = reviews.create(&PostParams::default(), &review).await?;
        let status = answer.status.unwrap_or_default();
        Ok(status.allowed && status.denied != Some(true))
    }

    async fn pod(&self, pod: &PodName) -> kube::Result<Option<NodeName>> {
        let pods: Api<Pod> = Api::namespaced(self.0.clone(), pod.namespace());
        let found = match pods.get(pod.name()).await {
            Err(error) if is_status(&error, 404) => return Ok(None),
            found => found?,
        };
        let node = found.spec.and_then(|spec| spec.node_name);
        Ok(node.and_then(|node| node.parse().ok()))
    }
}

impl Reviews for ApiReviews {
    fn user_of<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<User>, ReviewError>> {
        Box::pin(async { self.token(token).await.map_err(|error| failed(&error)) })
    }

    fn may<'a>(
        &'a self,
        user: &'a User,
        access: &'a NodeAccess,
    ) -> BoxFuture<'a, Result<bool, ReviewError>> {
        Box::pin(async {
            self.access(user, access)
                .await
                .map_err(|error| failed(&error))
        })
    }

    fn node_of<'a>(
        &'a self,
        pod: &'a PodName,
    ) -> BoxFuture<'a, Result<Option<NodeName>, ReviewError>> {
        Box::pin(async { self.pod(pod).await.map_err(|error| failed(&error)) })
    }
}

fn failed(error: &kube::Error) -> ReviewError {
    ReviewError(describe(error))
}

/// `None` if nobody is named.
fn user(info: UserInfo) -> Option<User> {
    Some(User {
        name: info.username.filter(|name| !name.is_empty())?,
        uid: info.uid.unwrap_or_default(),
        groups: info.groups.unwrap_or_default(),
        extra: info.extra.unwrap_or_default(),
    })
}

fn spec(user: &User, access: &NodeAccess) -> SubjectAccessReviewSpec {
    let text = |text: &str| Some(text.to_owned());
    SubjectAccessReviewSpec {
        user: text(&user.name),
        uid: text(&user.uid),
        groups: Some(user.groups.clone()),
        extra: Some(user.extra.clone()),
        resource_attributes: Some(ResourceAttributes {
            verb: text(access.verb.as_str()),
            version: text("v1"),
            resource: text("nodes"),
            subresource: text(access.subresource.as_str()),
            name: access.node.as_ref().map(ToString::to_string),
            ..ResourceAttributes::default()
        }),
        non_resource_attributes: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Subresource, Verb};

    #[test]
    fn a_question_says_all_that_a_permission_may_depend_on() {
        let alice = json!({
            "username": "alice", "uid": "7", "groups": ["people"], "extra": { "scopes": ["a", "b"] },
        });
        let alice = user(serde_json::from_value(alice).unwrap()).unwrap();
        let access = |node: Option<&str>| NodeAccess {
            verb: Verb::Get,
            subresource: Subresource::Metrics,
            node: node.map(|node| node.parse().unwrap()),
        };
        let asked = serde_json::to_value(spec(&alice, &access(Some("edge-1")))).unwrap();
        let expected = json!({
            "user": "alice", "uid": "7", "groups": ["people"], "extra": { "scopes": ["a", "b"] },
            "resourceAttributes": {
                "verb": "get", "version": "v1", "resource": "nodes", "subresource": "metrics", "name": "edge-1",
            },
        });
        assert_eq!(asked, expected);
        let of_any = serde_json::to_value(spec(&alice, &access(None))).unwrap();
        assert!(of_any["resourceAttributes"]["name"].is_null(), "{of_any}");
    }

    #[test]
    fn nobody_in_particular_is_nobody() {
        for info in [
            json!({}),
            json!({ "username": "", "groups": ["system:masters"] }),
        ] {
            assert_eq!(user(serde_json::from_value(info).unwrap()), None);
        }
    }
}
