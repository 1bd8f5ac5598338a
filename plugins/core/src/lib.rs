//! Node-RED's everyday nodes.
//!
//! One file per node type, with what several share beside them: `typed` (values with a type, as the editor's typed
//! inputs write them), `context_key`, `moment` (the time as a value), `numbers`, `surroundings` (what these need of
//! a node's `Ctx`), `handover` (what goes to newer code), `pause`. `props` and `schedule` belong to `inject`, `rule`
//! and `replace` to `change`, `link_calls`, `link_stack` and `link_targets` to the link nodes.
#![forbid(unsafe_code)]

mod catch;
mod change;
mod comment;
mod complete;
mod context_key;
mod debug;
mod handover;
mod inject;
mod inspect;
mod junction;
mod link_call;
mod link_calls;
mod link_in;
mod link_out;
mod link_stack;
mod link_targets;
mod moment;
mod numbers;
mod pause;
mod props;
mod replace;
mod rule;
mod schedule;
mod status;
mod surroundings;
mod tls_config;
mod typed;

flowbay_sdk::export_plugin!(
    inject::Inject,
    debug::Debug,
    complete::Complete,
    catch::Catch,
    status::StatusNode,
    link_in::LinkIn,
    link_call::LinkCall,
    link_out::LinkOut,
    comment::Comment,
    junction::Junction,
    change::Change,
    tls_config::TlsConfig,
);
