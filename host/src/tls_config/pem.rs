//! Certificates and keys out of PEM text, encrypted ones too.

use data_encoding::{BASE64, DecodeError};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::pkcs5::{self, EncryptionScheme};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::error::{Place, TlsProblem};

const BEGIN_ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &str = "-----END";

/// What encrypted PEM keys had in their head before PKCS#8.
const LEGACY_ENCRYPTED: &str = "Proc-Type: 4,ENCRYPTED";

/// Rounds of PBKDF2 that are done at most: some seconds. The figure stands in the file, so it may be any.
const MAX_ROUNDS: u32 = 10_000_000;

/// Memory that scrypt may take, in bytes: what OpenSSL allows, so no file of its own needs more.
const MAX_SCRYPT_BYTES: u64 = 64 * 1024 * 1024;

/// How often scrypt may do its work over that memory.
const MAX_SCRYPT_PASSES: u16 = 16;

/// All certificates in a text, at least one.
pub(super) fn certificates(place: &Place, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|_| TlsProblem::Malformed(place.clone()))?;
    if found.is_empty() {
        return Err(TlsProblem::Nothing(place.clone(), "certificate"));
    }
    Ok(found)
}

/// The first key in a text; an encrypted one is decrypted.
pub(super) fn key(
    place: &Place,
    text: &[u8],
    passphrase: &str,
) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    // Keys are ASCII; what stands around them need not be.
    let readable = String::from_utf8_lossy(text);
    if let Some((_, rest)) = readable.split_once(BEGIN_ENCRYPTED) {
        return decrypted(place, rest, passphrase);
    }
    if readable.contains(LEGACY_ENCRYPTED) {
        return Err(TlsProblem::Encryption(place.clone()));
    }
    match PrivateKeyDer::pem_slice_iter(text).next() {
        Some(Ok(key)) => Ok(key),
        Some(Err(_)) => Err(TlsProblem::Malformed(place.clone())),
        None => Err(TlsProblem::Nothing(place.clone(), "private key")),
    }
}

/// `rest` is the text behind the first line of a key that is encrypted as PKCS#8 has it (PBES2).
fn decrypted(place: &Place, rest: &str, passphrase: &str) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    let damaged = || TlsProblem::Malformed(place.clone());
    let (base64, _) = rest.split_once(END).ok_or_else(damaged)?;
    let der = decoded(base64).map_err(|_| damaged())?;
    // What is not known of the encryption shows here: another cipher, PBES1.
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(&*der);
    let encrypted = encrypted.map_err(|_| TlsProblem::Encryption(place.clone()))?;
    if !is_bearable(&encrypted.encryption_algorithm) {
        return Err(TlsProblem::Encryption(place.clone()));
    }
    if passphrase.is_empty() {
        return Err(TlsProblem::NoPassphrase(place.clone()));
    }
    match encrypted.decrypt(passphrase) {
        Ok(key) => Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into()),
        Err(
            pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::DecryptFailed)
            // A wrong one can also give something that only looks decrypted.
            | pkcs8::Error::Asn1(_),
        ) => Err(TlsProblem::WrongPassphrase(place.clone())),
        Err(_) => Err(TlsProblem::Encryption(place.clone())),
    }
}

fn decoded(base64: &str) -> Result<Vec<u8>, DecodeError> {
    BASE64.decode(&base64.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<_>>())
}

/// Whether decrypting takes neither minutes nor all memory.
fn is_bearable(encryption: &EncryptionScheme) -> bool {
    let EncryptionScheme::Pbes2(parameters) = encryption else { return false };
    match &parameters.kdf {
        Kdf::Pbkdf2(parameters) => parameters.iteration_count <= MAX_ROUNDS,
        Kdf::Scrypt(parameters) => {
            let bytes = u64::from(parameters.block_size).saturating_mul(128);
            bytes.saturating_mul(parameters.cost_parameter) <= MAX_SCRYPT_BYTES
                && parameters.parallelization <= MAX_SCRYPT_PASSES
        }
        _ => false,
    }
}
