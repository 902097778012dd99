//! Client certificates of any X.509 version, for the API server.
//!
//! `openssl x509 -req` makes those of version 1, kube-apiserver takes them, and so does kubectl. rustls
//! reads a certificate only to see whether the key is its own, and reads none but version 3. A key
//! that does not tell its public half is not compared; the kubeconfig's reader has done that.

use std::sync::Arc;

use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    crypto::{CryptoProvider, KeyProvider, aws_lc_rs::default_provider},
    sign::{Signer, SigningKey},
};
use rustls_pki_types::PrivateKeyDer;

/// Makes it the rule for connections to the API server. Those between culvert's own ends have a
/// provider of their own.
pub(in crate::kubernetes) fn install() {
    // Fails where it has been done.
    let _ = CryptoProvider {
        key_provider: &KeysAlone,
        ..default_provider()
    }
    .install_default();
}

#[derive(Debug)]
struct KeysAlone;

#[derive(Debug)]
struct KeyAlone(Arc<dyn SigningKey>);

impl KeyProvider for KeysAlone {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        let key = default_provider().key_provider.load_private_key(key)?;
        Ok(Arc::new(KeyAlone(key)))
    }
}

impl SigningKey for KeyAlone {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.0.choose_scheme(offered)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}
