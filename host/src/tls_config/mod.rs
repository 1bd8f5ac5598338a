//! `tls-config` nodes: from properties, credentials and files to the TLS of an outgoing connection.
//!
//! The node type is the core plugin's, which declares its properties and credentials. What they mean is known here,
//! since certificates and keys never cross to a plugin: a node that dials names the `tls-config` node.

mod error;
mod node;
mod pem;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

pub use error::{TlsConfigError, TlsProblem};
pub use node::TlsNode;

use self::error::Place;
use self::node::Material;
use crate::dial::{TlsOptions, Trust, client_config};

/// Configurations that are kept at most. A flow has few; when there are more, all are made anew.
const MAX_KNOWN: usize = 100;

/// What `tls-config` nodes come to, kept while nodes and files are as they were: decrypting a key may take a second, and
/// TLS sessions are resumed only within one configuration.
#[derive(Default)]
pub struct TlsConfigs {
    known: Mutex<HashMap<String, Known>>,
}

/// What a node came to, and a hash of all that it was made from. Failures are kept too: a wrong passphrase is not
/// tried again every few seconds.
struct Known {
    fingerprint: [u8; 32],
    outcome: Result<TlsOptions, TlsProblem>,
}

impl TlsConfigs {
    /// The TLS that a node configures. Reads its files each time: a certificate that was renewed is used by the next
    /// connection.
    ///
    /// # Errors
    /// See [`TlsProblem`].
    pub async fn resolve(&self, node: TlsNode) -> Result<TlsOptions, TlsConfigError> {
        let id = node.id.clone();
        let result = self.resolve_unnamed(node).await;
        result.map_err(|problem| TlsConfigError { node: id, problem })
    }

    async fn resolve_unnamed(&self, node: TlsNode) -> Result<TlsOptions, TlsProblem> {
        // Files and decryption take a thread that may wait.
        let id = node.id.clone();
        let (node, material) = blocking(move || node.read().map(|material| (node, material))).await??;
        let fingerprint = fingerprint(&node, &material);
        if let Some(known) = self.lock().get(&id).filter(|known| known.fingerprint == fingerprint) {
            return known.outcome.clone();
        }
        let blind = !node.verify;
        let outcome = blocking(move || options(node, material)).await?;
        let mut known = self.lock();
        if blind && outcome.is_ok() && known.get(&id).is_none_or(|known| known.fingerprint != fingerprint) {
            tracing::warn!(
                node = %id,
                "does not verify the certificates of servers: whoever is on the way can read and change what is sent"
            );
        }
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(id, Known { fingerprint, outcome: outcome.clone() });
        outcome
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TlsProblem> {
    // It ends otherwise only with the host.
    tokio::task::spawn_blocking(work).await.map_err(|error| TlsProblem::Unusable(error.to_string()))
}

/// A hash of everything that the outcome depends on, so that secrets are not kept twice.
fn fingerprint(node: &TlsNode, material: &Material) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |part: Option<&[u8]>| {
        hash.update([u8::from(part.is_some())]);
        let part = part.unwrap_or_default();
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    let texts = [&node.passphrase, &node.server_name, &node.protocol];
    texts.into_iter().for_each(|text| add(Some(text.as_bytes())));
    add(node.verify.then_some(&[]));
    for source in [&material.certificate, &material.key, &material.authorities] {
        add(source.as_ref().map(|(_, text)| &**text));
    }
    hash.finalize().into()
}

fn options(node: TlsNode, material: Material) -> Result<TlsOptions, TlsProblem> {
    let identity = match (&material.certificate, &material.key) {
        (None, None) => None,
        (Some(_), None) => return Err(TlsProblem::Missing("key")),
        (None, Some(_)) => return Err(TlsProblem::Missing("certificate")),
        (Some(certificate), Some(key)) => Some(identity(certificate, key, &node.passphrase)?),
    };
    let trust = match &material.authorities {
        _ if !node.verify => Trust::Blind,
        None => Trust::System,
        Some((place, text)) => Trust::Only(pem::certificates(place, text)?),
    };
    // Its length is one byte on the wire.
    if node.protocol.len() > 255 {
        return Err(TlsProblem::Unusable("the ALPN protocol is longer than 255 bytes".to_owned()));
    }
    let protocols = if node.protocol.is_empty() { Vec::new() } else { vec![node.protocol.into_bytes()] };
    let config = client_config(trust, identity, protocols).map_err(TlsProblem::Unusable)?;
    let server_name = (!node.server_name.is_empty()).then_some(node.server_name);
    Ok(TlsOptions { server_name, config: Some(config) })
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(
    certificate: &(Place, Vec<u8>),
    key: &(Place, Vec<u8>),
    passphrase: &str,
) -> Result<Identity, TlsProblem> {
    Ok((pem::certificates(&certificate.0, &certificate.1)?, pem::key(&key.0, &key.1, passphrase)?))
}

#[cfg(test)]
mod tests;
