//! Node-RED's encryption of credentials: AES-256 in counter mode, the key being the SHA-256 of the secret. The text is
//! 32 hexadecimal digits of initial counter, then the ciphertext in Base64.
//!
//! Nothing in it proves that text and key belong together: that what comes out is a JSON object has to do.

use aes::Aes256;
use ctr::{
    Ctr128BE,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Hexadecimal digits in front of the ciphertext.
const IV_DIGITS: usize = 32;

/// What a secret makes of credentials. Not printable.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// The key for a secret as Node-RED's settings have it.
    pub fn of_secret(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Encrypts credentials, each time with another counter.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn seal(&self, entries: &Map<String, Value>) -> std::io::Result<String> {
        let mut iv = [0; IV_DIGITS / 2];
        getrandom::fill(&mut iv).map_err(std::io::Error::other)?;
        let mut text = serde_json::to_vec(entries)?;
        self.apply(&iv, &mut text);
        Ok(HEXLOWER.encode(&iv) + &BASE64.encode(&text))
    }

    /// Decrypts credentials; `None` when they were encrypted with another secret, or are something else.
    pub fn open(&self, sealed: &str) -> Option<Map<String, Value>> {
        let (iv, text) = sealed.split_at_checked(IV_DIGITS)?;
        let iv = HEXLOWER_PERMISSIVE.decode(iv.as_bytes()).ok()?.try_into().ok()?;
        let mut text = BASE64.decode(text.as_bytes()).ok()?;
        self.apply(&iv, &mut text);
        serde_json::from_slice(&text).ok()
    }

    /// Encrypts and decrypts alike.
    fn apply(&self, iv: &[u8; IV_DIGITS / 2], text: &mut [u8]) {
        Ctr128BE::<Aes256>::new(&self.0.into(), iv.into()).apply_keystream(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Made with OpenSSL: `printf '{"a":{"password":"sesame"}}' | openssl enc -aes-256-ctr -K $(printf 'open' | sha256sum)
    /// -iv 000102030405060708090a0b0c0d0e0f | base64`.
    const SEALED: &str = "000102030405060708090a0b0c0d0e0fgnMiP1FPOjAO+imQOL2YZwocobsw7spjIE50";

    fn entries() -> Map<String, Value> {
        let Value::Object(map) = json!({"a": {"password": "sesame"}}) else { panic!() };
        map
    }

    #[test]
    fn what_openssl_encrypted_is_decrypted() {
        assert_eq!(Key::of_secret("open").open(SEALED), Some(entries()));
    }

    #[test]
    fn what_is_encrypted_twice_looks_different_and_means_the_same() {
        let key = Key::of_secret("open");
        let (one, two) = (key.seal(&entries()).unwrap(), key.seal(&entries()).unwrap());
        assert_ne!(one, two);
        assert_eq!((key.open(&one), key.open(&two)), (Some(entries()), Some(entries())));
    }

    #[test]
    fn another_secret_and_damaged_text_open_nothing() {
        assert_eq!(Key::of_secret("wrong").open(SEALED), None);
        let key = Key::of_secret("open");
        for damaged in
            ["", "00", &SEALED[..32], &SEALED[1..], &SEALED[..40], "ä€ä€ä€ä€ä€ä€ä€ä€ä€ä€ä€ä€ä€ä€ä€"]
        {
            assert_eq!(key.open(damaged), None, "{damaged:?}");
        }
    }
}
