//! Ends the process while the system loads it. Otherwise a whole plugin.

use flowbay_sdk::prelude::*;

/// A node type, so that it is a plugin.
struct Nothing;

#[node("nothing-of-exits-on-load")]
impl Node for Nothing {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Nothing)
    }
}

export_plugin!(Nothing);

/// The system calls what is listed in this section when it has mapped the library, before `dlopen` returns.
#[used]
#[unsafe(link_section = ".init_array")]
#[allow(unsafe_code, reason = "an initialiser is what is broken here")]
static INITIALISER: extern "C" fn() = initialise;

/// This one ends the process.
extern "C" fn initialise() {
    std::process::exit(3)
}
