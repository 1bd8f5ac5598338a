//! Objects that cross as values: their properties, by occasion.
//!
//! What is not on a hot path crosses as a [`crate::value::Value`] object, so that it can grow within one ABI major.
//! The SDK has a typed face for each of these.
//!
//! ## Plugin
//! Answer of `describe`: `name`, `version`, `sdk`, `abi`, `rustc` (strings), `panic` (`"unwind"` or `"abort"`), and
//! `types`, an array of node types:
//! `type`, `role` (`plain`, `config`, `catch`, `status`, `complete`, `link-in`, `link-out`, `link-call`, `source`),
//! `category`, `color`, `icon`, `align`, `inputs`, `outputs`, `concurrency` (messages in hand at a time, 1 unless
//! said, 0 for as many as the host allows), `html` (editor form and help), `credentials` (field → `text` or `password`).
//!
//! ## Route
//! For `register_route`: `kind` (`upgrade`, `public` or `admin`), `path`, and for the latter two `method`.
//!
//! ## Upgrade request
//! `path`, `query`, `headers` (object, lower-case names; a repeated header is an array), `protocols` (array, as
//! offered), `remote` (address:port).
//!
//! ## Upgrade answer
//! One of `{accept: true, protocol?, headers?}`, `{refuse: status, headers?, body?}`, `{defer: true}`. The connection
//! that follows has the state `{request, protocol, input}`.
//!
//! ## Request and response
//! Request: `method`, `path`, `query`, `headers`, `body` (bytes), `remote`. Response: `status`, `headers?`, `body?`
//! (bytes, or a string sent as UTF-8, or anything else sent as JSON).
//!
//! ## Dial
//! `host`, `port`, `tls` (bool), `timeout_ms?`, `server_name?`.
//!
//! ## Debug event
//! `name`, `topic?`, `property` (what is shown), `value`, `absent` (bool: there was no such property).
