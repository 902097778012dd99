//! Making, listing and revoking tokens.

use std::{net::IpAddr, time::Duration};

use time::OffsetDateTime;

use super::{
    JoinToken, State, StateError, TokenId, TokenRecord, UnusableAddress,
    addresses::usable,
    state::{read_record, readable, write_record},
};
use crate::model::{GatePolicy, NodeName};

const MAKE_ANEW: &str = "make a new token with `culvert token create --node NAME`";

/// Records are kept this long after their end, so that a late user still learns what happened.
const KEPT_AFTER_END: time::Duration = time::Duration::days(30);

/// File systems take names of 255 bytes: this and `.json`.
const MAX_NODE_NAME: usize = 250;

/// What a token is to be.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The node that it enrols.
    pub node: NodeName,
    /// The addresses that the node gets; none means those that the agent proposes.
    pub addresses: Vec<IpAddr>,
    /// The node's own policy for a closed gate.
    pub gate_policy: Option<GatePolicy>,
    /// How long it can be used.
    pub ttl: Duration,
}

/// Why a token cannot be made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The node cannot have this address.
    #[error("--address: {0}")]
    Address(UnusableAddress),
    /// The name does not fit a file name.
    #[error(
        "--node: {0} is longer than {MAX_NODE_NAME} characters, the most that standalone mode takes"
    )]
    NameTooLong(NodeName),
    /// A token that ends at once, or never.
    #[error("--ttl: a token lives at least one second and at most ten years")]
    Ttl,
    /// There is none with this id.
    #[error("there is no token {0}; `culvert token list` shows those there are")]
    Unknown(TokenId),
    /// The state is not usable.
    #[error(transparent)]
    State(#[from] StateError),
}

impl State {
    /// Makes a token. This is the only time that its secret is known here.
    pub fn create_token(
        &self,
        new: NewToken,
        now: OffsetDateTime,
    ) -> Result<(JoinToken, TokenRecord), TokenError> {
        if new.node.as_str().len() > MAX_NODE_NAME {
            return Err(TokenError::NameTooLong(new.node));
        }
        let expires = expiry(now, new.ttl).ok_or(TokenError::Ttl)?;
        let lock = self.lock()?;
        let addresses = self.explicit_addresses(&new)?;
        self.forget_old_tokens(now)?;
        let token = self.unused_token()?;
        let life = (now, expires);
        let record = TokenRecord::new(&token, new.node, addresses, new.gate_policy, life);
        self.write_token(token.id(), &record)?;
        drop(lock);
        Ok((token, record))
    }

    /// Every token, by id. A record that cannot be read is left out with a warning.
    pub fn tokens(&self) -> Result<Vec<(TokenId, TokenRecord)>, StateError> {
        let names = self.tokens.records()?;
        let ids = names.iter().filter_map(|name| name.parse::<TokenId>().ok());
        Ok(ids
            .filter_map(|id| readable(self.token(&id)).map(|record| (id, record)))
            .collect())
    }

    /// Makes a token useless. A node that it enrolled stays enrolled.
    pub fn revoke_token(&self, id: &TokenId) -> Result<TokenRecord, TokenError> {
        let _lock = self.lock()?;
        let unknown = || TokenError::Unknown(id.clone());
        let mut record = self.token(id)?.ok_or_else(unknown)?;
        record.revoked = true;
        self.write_token(id, &record)?;
        Ok(record)
    }

    pub(super) fn token(&self, id: &TokenId) -> Result<Option<TokenRecord>, StateError> {
        read_record(&self.tokens, id.as_str(), MAKE_ANEW)
    }

    pub(super) fn write_token(&self, id: &TokenId, token: &TokenRecord) -> Result<(), StateError> {
        write_record(&self.tokens, id.as_str(), token)
    }

    pub(super) fn lock(&self) -> Result<crate::pki::StoreLock, StateError> {
        Ok(self.dir.lock()?)
    }

    fn explicit_addresses(&self, new: &NewToken) -> Result<Vec<IpAddr>, TokenError> {
        let owner = self.owners_besides(&new.node)?;
        let mut addresses = Vec::new();
        for address in &new.addresses {
            let address = usable(*address).map_err(TokenError::Address)?;
            if let Some(owner) = owner(address) {
                let taken = UnusableAddress::Taken { address, owner };
                return Err(TokenError::Address(taken));
            }
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    fn unused_token(&self) -> Result<JoinToken, StateError> {
        loop {
            let token = JoinToken::generate();
            if self.token(token.id())?.is_none() {
                return Ok(token);
            }
        }
    }

    fn forget_old_tokens(&self, now: OffsetDateTime) -> Result<(), StateError> {
        for (id, record) in self.tokens()? {
            if now - record.expires > KEPT_AFTER_END {
                self.tokens.remove(&format!("{id}.json"))?;
            }
        }
        Ok(())
    }
}

fn expiry(now: OffsetDateTime, ttl: Duration) -> Option<OffsetDateTime> {
    let sane = Duration::from_secs(1)..=Duration::from_hours(10 * 366 * 24);
    sane.contains(&ttl).then(|| now + ttl)
}
