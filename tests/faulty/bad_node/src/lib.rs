//! Node types for tests of the runtime: some misbehave, others only tests have a use for. One plugin, in good order.
//!
//! | type | configuration | what it does |
//! |---|---|---|
//! | `panics-on-input` | | panics on every message |
//! | `panics-in-constructor` | | panics instead of being created |
//! | `panics-in-run` | | panics in its own task |
//! | `fails-on-input` | `text` | fails with that text on every message |
//! | `never-completes` | | never finishes with a message |
//! | `never-closes` | | passes messages on; its close never finishes |
//! | `slow-constructor` | `ms` | blocks its thread for so long while it is created; passes messages on |
//! | `sleeps` | `ms` | passes each message on after so long |
//! | `passes` | | passes messages on |
//! | `counter` | | passes messages on with `count`: how many there were, kept over hot swaps |
//! | `multi-output` | `outputs` | sends each message to every output, with `output`: its number |
//! | `burst` | `count` | sends payloads 0, 1, …, waiting while the flow is congested |
//! | `blind-burst` | `count` | the same without waiting |
//! | `collector` | | keeps payloads and shows them as JSON at `/collector/<id>` |
//! | `shows-credentials` | | sends messages on with its credentials (`user`, `password`) as the payload |
//! | `uses-tls` | `log` | passes messages on; makes thread-local values whose end is a line in the file `log` |
//! | `makes-thread` | `log` | makes such a value on a thread of its own while it is created |

#![forbid(unsafe_code)]

mod collector;
mod credentials;
mod failing;
mod passing;
mod slow;
mod sources;
mod tls;

use collector::Collector;
use credentials::ShowsCredentials;
use failing::{FailsOnInput, PanicsInConstructor, PanicsInRun, PanicsOnInput};
use flowbay_sdk::export_plugin;
use passing::{Counter, MultiOutput, Passes};
use slow::{NeverCloses, NeverCompletes, Sleeps, SlowConstructor};
use sources::{BlindBurst, Burst};
use tls::{MakesThread, UsesTls};

export_plugin!(
    PanicsOnInput,
    PanicsInConstructor,
    PanicsInRun,
    FailsOnInput,
    NeverCompletes,
    NeverCloses,
    SlowConstructor,
    Sleeps,
    Passes,
    Counter,
    MultiOutput,
    Burst,
    BlindBurst,
    Collector,
    ShowsCredentials,
    UsesTls,
    MakesThread,
);
