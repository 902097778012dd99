//! What a frontend that lets clients act on nodes has to be told about them. Who answers, it does not know: in a
//! cluster it is the API server.

use futures_util::future::BoxFuture;

use super::{NodeAccess, NodeName, PodName, User};

/// Answers about clients. Whoever asks decides how long to wait.
pub trait Reviews: Send + Sync {
    /// Whose bearer token this is; `None` if it is nobody's, or has ended.
    fn user_of<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<User>, ReviewError>>;

    /// Whether the user may do that.
    fn may<'a>(
        &'a self,
        user: &'a User,
        access: &'a NodeAccess,
    ) -> BoxFuture<'a, Result<bool, ReviewError>>;

    /// The node that a pod runs on; `None` if there is no such pod, or it runs nowhere yet.
    fn node_of<'a>(
        &'a self,
        pod: &'a PodName,
    ) -> BoxFuture<'a, Result<Option<NodeName>, ReviewError>>;
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReviewError(pub String);
