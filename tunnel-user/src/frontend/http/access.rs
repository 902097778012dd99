//! Who a client is and what it may do to a node: asked of the cluster, and remembered for a few seconds.
//!
//! ```text
//!  certificate ----------------\
//!  bearer token --> user of it --> User --> may it? (verb, subresource, node) --> yes, or a Refusal
//! ```
//! Nothing is let through that the cluster has not answered for: where it does not answer in time the request fails.
//! Of tokens only keyed hashes are kept.

mod attributes;
mod cache;
mod credential;

use std::{
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

pub(in crate::frontend) use self::credential::Proof;
pub(super) use self::{
    attributes::{Wanted, pod_in},
    credential::Unproved,
};
use self::{cache::Cache, credential::bearer};
use super::{refusal::Refusal, visit::Visit};
use crate::{
    model::{NodeAccess, NodeName, PodName, ReviewError, Reviews, User, printable},
    tunnel::{Client, NoPlace, Places},
};

/// How long all questions of one request may take.
pub(super) const REVIEW_TIME: Duration = Duration::from_secs(5);
/// How long a good answer counts: a revocation takes effect within this.
const GOOD: Duration = Duration::from_secs(10);
/// How long any other answer does: a grant takes effect within this.
const BAD: Duration = Duration::from_secs(2);
/// The most answers of each kind that are kept.
const MOST_ANSWERS: usize = 4096;
/// The most questions under way of each kind: whose a token is, and what a user may. One address may have half of them.
const MOST_QUESTIONS: u32 = 64;

/// Knows what clients may do.
pub(super) struct Access {
    reviews: Arc<dyn Reviews>,
    /// Random: whoever reads this memory's copy of a hash cannot look the token up elsewhere.
    key: [u8; 32],
    known: Mutex<Known>,
    /// Whose a token is, which anybody can make the server ask.
    of_tokens: Mutex<Places>,
    /// What users may do, and where pods are: only they can have that asked, whoever else is there.
    of_users: Mutex<Places>,
}

struct Known {
    users: Cache<TokenHash, Option<Arc<User>>>,
    decisions: Cache<(Arc<User>, NodeAccess), bool>,
    pods: Cache<PodName, Option<NodeName>>,
}

type TokenHash = [u8; 32];

/// The questions of one request.
pub(super) struct Review<'a> {
    access: &'a Access,
    visit: &'a Visit,
    deadline: Instant,
}

/// A question under way, until this is dropped.
struct Asking<'a> {
    places: &'a Mutex<Places>,
    client: Client,
}

impl Access {
    pub(super) fn new(reviews: Arc<dyn Reviews>) -> Self {
        Self {
            reviews,
            key: rand::random(),
            known: Mutex::new(Known {
                users: Cache::new(MOST_ANSWERS),
                decisions: Cache::new(MOST_ANSWERS),
                pods: Cache::new(MOST_ANSWERS),
            }),
            of_tokens: Mutex::new(Places::new(MOST_QUESTIONS)),
            of_users: Mutex::new(Places::new(MOST_QUESTIONS)),
        }
    }

    pub(super) fn review<'a>(&'a self, visit: &'a Visit) -> Review<'a> {
        Review {
            access: self,
            visit,
            deadline: Instant::now() + REVIEW_TIME,
        }
    }

    fn hash(&self, token: &str) -> TokenHash {
        let keyed = Sha256::new().chain_update(self.key);
        keyed.chain_update(token).finalize().into()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

impl Review<'_> {
    /// Who asks: by the certificate if there is one, as kubelets have it, else by the token.
    pub(super) async fn user(&self, headers: &HeaderMap) -> Result<Arc<User>, Refusal> {
        match &self.visit.proof {
            Proof::User(certificate, _) if certificate.has_ended(OffsetDateTime::now_utc()) => {
                Err(Unproved::CertificateEnded.into())
            }
            Proof::User(_, withdrawn) if withdrawn.is_cancelled() => {
                Err(Unproved::CaWithdrawn.into())
            }
            Proof::User(certificate, _) => Ok(Arc::clone(&certificate.user)),
            Proof::NotAUser(why) => Err(Unproved::Certificate(*why).into()),
            Proof::None => self.user_of(bearer(headers)?).await,
        }
    }

    async fn user_of(&self, token: &str) -> Result<Arc<User>, Refusal> {
        let reviews = &self.access.reviews;
        let asked = async { Ok(reviews.user_of(token).await?.map(Arc::new)) };
        let hash = self.access.hash(token);
        let places = &self.access.of_tokens;
        let user = self.answer(
            |known| &mut known.users,
            hash,
            Option::is_some,
            places,
            asked,
        );
        user.await?.ok_or_else(|| Unproved::Token.into())
    }

    /// Lets it pass if one of the questions has a good answer: the one that has is returned.
    pub(super) async fn permit(
        &self,
        user: &Arc<User>,
        wanted: &Wanted,
    ) -> Result<NodeAccess, Refusal> {
        for access in wanted.questions() {
            if self.may(user, &access).await? {
                return Ok(access);
            }
        }
        Err(not_permitted(user, wanted.first()))
    }

    /// Where a pod is. Who may do nothing to its node does not learn whether there is one.
    pub(super) async fn node_of(
        &self,
        user: &Arc<User>,
        pod: &PodName,
        wanted: &Wanted,
    ) -> Result<NodeName, Refusal> {
        let asked = async { self.access.reviews.node_of(pod).await };
        let places = &self.access.of_users;
        // Either answer for as short a time: how soon it is asked again tells whether there is one.
        let node = self.answer(
            |known| &mut known.pods,
            pod.clone(),
            |_| false,
            places,
            asked,
        );
        let Some(node) = node.await? else {
            self.permit(user, wanted).await?;
            return Err(Refusal::UnknownPod(pod.clone()));
        };
        let there = wanted.clone().of_node(node.clone());
        match self.permit(user, &there).await {
            Ok(_) => Ok(node),
            // In the words that are for no pod.
            Err(Refusal::NotPermitted { .. }) => Err(not_permitted(user, wanted.first())),
            Err(refusal) => Err(refusal),
        }
    }

    async fn may(&self, user: &Arc<User>, access: &NodeAccess) -> Result<bool, Refusal> {
        let asked = async { self.access.reviews.may(user, access).await };
        let question = (Arc::clone(user), access.clone());
        let places = &self.access.of_users;
        let may = self.answer(
            |known| &mut known.decisions,
            question,
            |may| *may,
            places,
            asked,
        );
        may.await
    }

    /// The answer that is known; else what the cluster says, if it says it in time.
    async fn answer<K, V>(
        &self,
        kind: fn(&mut Known) -> &mut Cache<K, V>,
        question: K,
        is_good: fn(&V) -> bool,
        places: &Mutex<Places>,
        asked: impl Future<Output = Result<V, ReviewError>>,
    ) -> Result<V, Refusal>
    where
        K: Clone + Eq + Hash,
        V: Clone,
    {
        let known = kind(&mut self.access.known()).get(&question, Instant::now());
        if let Some(answer) = known {
            return Ok(answer);
        }
        let answer = {
            let _asking = Asking::begin(places, self.visit)?;
            timeout_at(self.deadline, asked).await
        };
        let answer = match answer {
            Ok(answer) => answer.map_err(|ReviewError(cause)| Refusal::NotReviewed(cause))?,
            Err(_elapsed) => {
                let cause = format!("no answer within {REVIEW_TIME:?}");
                return Err(Refusal::NotReviewed(cause));
            }
        };
        let now = Instant::now();
        let until = now + if is_good(&answer) { GOOD } else { BAD };
        kind(&mut self.access.known()).put(question, answer.clone(), until, now);
        Ok(answer)
    }
}

impl<'a> Asking<'a> {
    fn begin(places: &'a Mutex<Places>, visit: &Visit) -> Result<Self, Refusal> {
        let client = visit.client;
        lock(places)
            .take(client)
            .map_err(|no_place| match no_place {
                NoPlace::ClientFull(_) => Refusal::TooMany(visit.peer.0.ip()),
                NoPlace::Full(most) => Refusal::NotReviewed(format!(
                    "{most} questions to the API server are under way already"
                )),
            })?;
        Ok(Self { places, client })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        lock(self.places).leave(self.client);
    }
}

fn not_permitted(user: &User, access: NodeAccess) -> Refusal {
    let user = printable(&user.name);
    Refusal::NotPermitted { user, access }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole between any two operations, whatever panicked meanwhile.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
