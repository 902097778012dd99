//! Whose clients are let in where TLS ends, and who hears that theirs are no longer.

use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

/// The CAs that count, and what is cancelled once one of them does no longer.
pub(super) struct ClientTrust {
    cas: Vec<CertificateDer<'static>>,
    withdrawn: CancellationToken,
}

impl ClientTrust {
    pub(super) fn new(cas: Vec<CertificateDer<'static>>) -> Self {
        Self {
            cas,
            withdrawn: CancellationToken::new(),
        }
    }

    /// Cancelled once one of the CAs of now is trusted no longer.
    pub(super) fn withdrawn(&self) -> CancellationToken {
        self.withdrawn.clone()
    }

    /// These count from now on. What is returned has to be cancelled once they are in use: whoever came by one that is
    /// gone has to come anew.
    pub(super) fn replace(
        &mut self,
        cas: Vec<CertificateDer<'static>>,
    ) -> Option<CancellationToken> {
        let is_withdrawn = self.cas.iter().any(|ca| !cas.contains(ca));
        self.cas = cas;
        is_withdrawn.then(|| std::mem::take(&mut self.withdrawn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cas(names: &str) -> Vec<CertificateDer<'static>> {
        let der = |name: u8| CertificateDer::from(vec![name]);
        names.bytes().map(der).collect()
    }

    #[test]
    fn who_came_by_a_ca_that_is_gone_is_told_and_nobody_else() {
        let mut trust = ClientTrust::new(cas("ab"));
        let first = trust.withdrawn();
        for same_or_more in ["ab", "ba", "bac"] {
            assert!(trust.replace(cas(same_or_more)).is_none(), "{same_or_more}");
        }
        trust.replace(cas("bc")).unwrap().cancel();
        assert!(first.is_cancelled());
        assert!(
            !trust.withdrawn().is_cancelled(),
            "of those who come from now on"
        );
        trust.replace(cas("")).unwrap();
        assert!(trust.replace(cas("a")).is_none());
    }
}
