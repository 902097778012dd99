//! Who gets a certificate.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tracing::{info, warn};

use super::{
    JoinToken, Refused, Registration, State, TokenRecord, UnusableAddress,
    addresses::{Chosen, choose},
    token_record::TokenUse,
};
use crate::{
    model::{AgentIdentity, NodeName, NodeNetworks},
    pki::{AgentCsr, AgentProof, UnprovedIdentity, Validity, agent_identity},
};

/// Decides about requests for certificates, one at a time under the state's lock.
pub struct Admission<'a> {
    /// The state that it reads and changes.
    pub state: &'a State,
    /// The life of the certificates that it issues.
    pub certificate_ttl: Duration,
    /// Where nodes may have addresses.
    pub node_networks: &'a NodeNetworks,
    /// Whether an address is one of the server's own.
    pub is_server_address: &'a (dyn Fn(IpAddr) -> bool + Send + Sync),
}

/// What an agent asks for that has no certificate yet.
#[derive(Clone, Copy)]
pub struct Enrolling<'a> {
    /// The token as the caller gave it.
    pub token: &'a str,
    /// The node that the caller means to be.
    pub node: &'a NodeName,
    /// The request for the caller's key (DER); its signature is checked after the token.
    pub csr_der: &'a [u8],
    /// The machine's addresses, for tokens that name none.
    pub proposed: &'a [IpAddr],
}

/// A certificate, and what it names.
#[derive(Debug)]
pub struct Issued {
    /// The agent's new certificate.
    pub certificate: CertificateDer<'static>,
    /// What it proves.
    pub identity: AgentIdentity,
}

impl Admission<'_> {
    /// Enrols the node that the token names.
    pub fn enrol(&self, asked: &Enrolling<'_>, now: OffsetDateTime) -> Result<Issued, Refused> {
        let token: JoinToken = asked.token.parse().map_err(|_| Refused::UnknownToken)?;
        // Whoever guesses costs a look at a file: neither a signature's check nor the lock, for
        // which renewals and `culvert token` would wait.
        self.known_token(&token)?;
        let csr = AgentCsr::from_der(asked.csr_der)?;
        let _lock = self.state.lock()?;
        let mut record = self.known_token(&token)?;
        if *asked.node != record.node {
            return Err(Refused::OtherNode {
                token: record.node,
                agent: asked.node.clone(),
            });
        }
        let key = csr.subject_key();
        let registration = match record.admit(&key, now)? {
            TokenUse::First => {
                let registration = self.registration(&token, &record, asked.proposed, now)?;
                // The registration first: after a crash between the two, the token is still good.
                self.state.register(&registration)?;
                record.used_by = Some(key);
                self.state.write_token(token.id(), &record)?;
                info!(node = %registration.name, addresses = ?registration.addresses,
                    enrolment = %token.id(), "enrolled a node");
                registration
            }
            TokenUse::Again => self.current(&record.node, token.id().as_str())?,
        };
        self.issue(&csr, &registration, now)
    }

    /// Renews the certificate of an agent whose enrolment still counts.
    pub fn renew(
        &self,
        certificate: Option<&CertificateDer<'_>>,
        csr_der: &[u8],
        now: OffsetDateTime,
    ) -> Result<Issued, Refused> {
        let certificate = certificate.ok_or(Refused::NoCertificate)?;
        let identity = agent_identity(certificate, AgentProof::Enrolment)?;
        let validity = Validity::of(certificate).ok_or(UnprovedIdentity::Unreadable)?;
        if validity.has_ended(now) {
            return Err(Refused::CertificateExpired(validity.expires));
        }
        let csr = AgentCsr::from_der(csr_der)?;
        let _lock = self.state.lock()?;
        let registration = self.current(&identity.node, identity.key.as_str())?;
        let issued = self.issue(&csr, &registration, now)?;
        info!(node = %registration.name, "renewed an agent's certificate");
        Ok(issued)
    }

    fn known_token(&self, token: &JoinToken) -> Result<TokenRecord, Refused> {
        let record = self.state.token(token.id())?;
        record
            .filter(|record| record.knows(token))
            .ok_or(Refused::UnknownToken)
    }

    /// The registration that the first use of a token makes.
    fn registration(
        &self,
        token: &JoinToken,
        record: &TokenRecord,
        proposed: &[IpAddr],
        now: OffsetDateTime,
    ) -> Result<Registration, Refused> {
        let owner = self.state.owners_besides(&record.node)?;
        let addresses = if record.addresses.is_empty() {
            let chosen = choose(proposed, owner, |address| self.may_be_a_nodes(address));
            let addresses = accept(&record.node, chosen)?;
            warn!(node = %record.node, ?addresses, "the agent chose the node's addresses itself, its \
                token names none: connects to them go there from now on");
            addresses
        } else {
            for &address in &record.addresses {
                if let Some(owner) = owner(address) {
                    return Err(Refused::Address(UnusableAddress::Taken { address, owner }));
                }
                self.may_be_a_nodes(address).map_err(Refused::Address)?;
            }
            record.addresses.clone()
        };
        Ok(Registration {
            name: record.node.clone(),
            addresses,
            enrolment: token.id().clone(),
            enrolled_at: now,
            gate_policy: record.gate_policy,
        })
    }

    fn may_be_a_nodes(&self, address: IpAddr) -> Result<(), UnusableAddress> {
        if (self.is_server_address)(address) {
            Err(UnusableAddress::Server { address })
        } else if self.node_networks.admit(address) {
            Ok(())
        } else {
            Err(UnusableAddress::OutsideNodeNetworks { address })
        }
    }

    /// The node's registration, if this enrolment is the one that counts.
    fn current(&self, node: &NodeName, enrolment: &str) -> Result<Registration, Refused> {
        let not_registered = || Refused::NotRegistered(node.clone());
        let registration = self.state.registration(node)?.ok_or_else(not_registered)?;
        if registration.enrolment.as_str() != enrolment {
            return Err(Refused::Superseded(node.clone()));
        }
        Ok(registration)
    }

    fn issue(
        &self,
        csr: &AgentCsr,
        registration: &Registration,
        now: OffsetDateTime,
    ) -> Result<Issued, Refused> {
        let identity = registration.identity();
        let validity = Validity::starting(now, self.certificate_ttl);
        let certificate = self.state.ca().issue_agent(csr, &identity, validity)?;
        Ok(Issued {
            certificate,
            identity,
        })
    }
}

fn accept(node: &NodeName, chosen: Chosen) -> Result<Vec<IpAddr>, Refused> {
    for skipped in &chosen.skipped {
        info!(%node, reason = %skipped, "left out an address that the agent proposed");
    }
    if !chosen.taken.is_empty() {
        return Ok(chosen.taken);
    }
    let mut reasons = String::new();
    for skipped in &chosen.skipped {
        let separator = if reasons.is_empty() { "" } else { "; " };
        write!(reasons, "{separator}{skipped}").expect("strings take any text");
    }
    if reasons.is_empty() {
        "it proposed none".clone_into(&mut reasons);
    }
    Err(Refused::NoAddress(reasons))
}

#[cfg(test)]
mod tests;
