//! Objects that cross as values: their properties, by occasion.
//!
//! What is not on a hot path crosses as a [`crate::value::Value`] object, so that it can grow within one ABI major.
//! The SDK has a typed face for each of these.
//!
//! ## Plugin
//! Answer of `describe`: `name`, `version`, `sdk`, `abi`, `rustc` (strings), `panic` (`"unwind"` or `"abort"`),
//! `description?`, `license?`, `homepage?` (strings, perhaps empty), and `types`, an array of node types:
//! `type`, `role` (`plain`, `config`, `catch`, `status`, `complete`, `link-in`, `link-out`, `link-call`, `source`),
//! `category`, `color`, `icon`, `align`, `inputs`, `outputs`, `concurrency` (messages in hand at a time, 1 unless
//! said, 0 for as many as the host allows), `html` (editor form and help), `credentials` (field → `text` or `password`),
//! `icon_svg?` (the icon itself, 64 KiB at most; `icon` is its file name then), `locales?` (language tag → the text of a
//! message catalogue: a JSON object, 256 KiB at most; 100 languages at most).
//!
//! ## Route
//! For `register_route`: `kind` (`upgrade`, `public` or `admin`), `path`, and for the latter two `method`.
//!
//! ## Upgrade request
//! `path`, `query` (as it came, or null), `params` (object: what the path has in place of the route's parameters),
//! `headers` (object, lower-case names; a repeated header is an array), `protocols` (array, as offered), `remote`
//! (address:port), `tls` (bool).
//!
//! ## Upgrade answer
//! One of `{accept: true, protocol?, headers?, queue?, extra?}`, `{refuse: status, headers?, body?, reason?}` (the
//! reason is for the host's log only), `{defer: true, timeout_ms?}` (how long the answer may take before the host
//! refuses with 503). The connection that follows has the state `{request, protocol, input, extra?}`.
//!
//! ## Queue
//! Of what waits to be sent to a session; in an upgrade answer, and in the state that `attach` is given: `messages?`
//! and `bytes?` (how much may wait; the host's settings when absent), `overflow?`: what happens with one more, `close`
//! (the session is cut), `drop-newest` (it is dropped) or `drop-oldest` (those that wait longest make room).
//!
//! ## Metric
//! For `metric`: a name of `a`-`z`, `0`-`9` and `_` that begins with a letter, at most 100 long; a counter's ends with
//! `_total`. A name, without that, is of one kind, whichever nodes have it. A node has at most 100 of them.
//!
//! ## Request and response
//! Request: `method`, `path`, `query`, `headers`, `body` (bytes), `remote`. Response: `status`, `headers?`, `body?`
//! (bytes, or a string sent as UTF-8, or anything else sent as JSON).
//!
//! ## Dial
//! `host`, `port`, `tls` (bool), `timeout_ms?`, `server_name?`, `tls_config?` (id of a config node whose TLS options
//! the host reads with its credentials), `proxy?` (bool: by way of the proxy that the environment names).
//!
//! ## Debug event
//! `name`, `topic?`, `property` (what is shown), `value`, `absent` (bool: there was no such property).
