//! `tls-config`: certificates and keys for connections by TLS.
//!
//! A declaration: nodes that connect name such a node to the host, which reads files and credentials itself. So no key
//! comes near a plugin.

use flowbay_sdk::{Credential, Role, prelude::*};

use crate::handover;

/// What is known of it here: nothing.
pub struct TlsConfig;

#[node(
    "tls-config",
    role = Role::Config,
    category = "config",
    credentials = &[
        ("certdata", Credential::Text),
        ("keydata", Credential::Password),
        ("cadata", Credential::Text),
        ("p12data", Credential::Password),
        ("passphrase", Credential::Password),
    ],
    html = include_str!("../html/tls-config.html")
)]
impl Node for TlsConfig {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &Ctx) -> Result<Self, Error> {
        Ok(Self)
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(handover::stateless())
    }
}
