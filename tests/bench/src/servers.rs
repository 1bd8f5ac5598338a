//! What is measured: each server as a command line, and the flow files flowbay is given.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::{Server, guarded};
use crate::connect::ECHO_PATH;
use crate::error::Error;

/// A server that echoes at [`ECHO_PATH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// `flowbay run` with an echo flow.
    Flowbay,
    /// tokio-tungstenite by hand: this program's `serve-tungstenite`.
    Tungstenite,
}

impl Kind {
    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Flowbay => "flowbay",
            Kind::Tungstenite => "tokio-tungstenite",
        }
    }
}

/// The flow that flowbay runs; other servers only echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// `websocket in` wired to `websocket out` at one listener, and nothing else.
    Echo,
    /// The seed flow, its client connection pointed at the port chosen.
    Seed,
}

impl Flow {
    /// The flow as a flow file, for a host that will listen on `port`.
    fn file(self, port: u16) -> String {
        match self {
            Flow::Echo => echo_flow().to_string(),
            Flow::Seed => {
                include_str!("../../../flows/websocket-echo.json").replace(":1880/", &format!(":{port}/"))
            }
        }
    }
}

fn echo_flow() -> Value {
    let (tab, listener, input, output) =
        ("b10000000000000a", "b10000000000000b", "b10000000000000c", "b10000000000000d");
    json!([
        { "id": tab, "type": "tab", "label": "Echo", "disabled": false, "info": "", "env": [] },
        { "id": listener, "type": "websocket-listener", "path": ECHO_PATH, "wholemsg": "false" },
        { "id": input, "type": "websocket in", "z": tab, "name": "", "server": listener, "client": "",
          "x": 200, "y": 100, "wires": [[output]] },
        { "id": output, "type": "websocket out", "z": tab, "name": "", "server": listener, "client": "",
          "x": 400, "y": 100, "wires": [] },
    ])
}

/// Where the executables are.
pub struct Tools {
    bench: PathBuf,
    flowbay: PathBuf,
}

impl Tools {
    /// `flowbay` if given, else the one beside this program.
    ///
    /// # Errors
    /// This program's own path cannot be found.
    pub fn new(flowbay: Option<PathBuf>) -> Result<Tools, Error> {
        let bench = env::current_exe().map_err(Error::io("finding this program's own file"))?;
        let flowbay = flowbay.unwrap_or_else(|| bench.with_file_name("flowbay"));
        Ok(Tools { bench, flowbay })
    }

    /// Starts a server on `port` (0 picks one) in a folder of its own and waits until it echoes.
    ///
    /// # Errors
    /// It cannot be started, or does not echo in time.
    pub fn start(&self, kind: Kind, flow: Flow, port: u16) -> Result<Server, Error> {
        let folder = tempfile::tempdir().map_err(Error::io("making a temporary folder"))?;
        let command = match kind {
            Kind::Tungstenite => {
                let mut command = guarded(&self.bench, &self.bench);
                command.arg("serve-tungstenite").arg("--port").arg(port.to_string());
                command
            }
            Kind::Flowbay => self.flowbay_command(&folder, flow, port)?,
        };
        Server::start(kind.name(), command, folder, port)
    }

    /// The flowbay executable, as an absolute path, since servers run in other folders.
    ///
    /// # Errors
    /// There is none.
    pub fn flowbay_file(&self) -> Result<PathBuf, Error> {
        fs::canonicalize(&self.flowbay).map_err(Error::io(format!(
            "finding {} (build it with `cargo build --release`, or name it with --flowbay)",
            self.flowbay.display()
        )))
    }

    /// A command for flowbay that ends when the thread that starts it ends.
    ///
    /// # Errors
    /// There is no flowbay.
    pub fn flowbay_guarded(&self) -> Result<Command, Error> {
        Ok(guarded(&self.bench, &self.flowbay_file()?))
    }

    fn flowbay_command(&self, folder: &TempDir, flow: Flow, port: u16) -> Result<Command, Error> {
        let file: &Path = &folder.path().join("flows.json");
        fs::write(file, flow.file(port)).map_err(Error::io(format!("writing {}", file.display())))?;
        let mut command = self.flowbay_guarded()?;
        command.arg("run").arg(file).arg("--port").arg(port.to_string());
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flow: Flow) -> Vec<Value> {
        serde_json::from_str(&flow.file(4321)).unwrap()
    }

    #[test]
    fn the_echo_flow_wires_what_comes_in_to_what_goes_out() {
        let nodes = parse(Flow::Echo);
        let of_type = |name: &str| nodes.iter().find(|node| node["type"] == name).unwrap();
        assert_eq!(of_type("websocket in")["wires"][0][0], of_type("websocket out")["id"]);
        for name in ["websocket in", "websocket out"] {
            assert_eq!(of_type(name)["server"], of_type("websocket-listener")["id"]);
        }
    }

    #[test]
    fn the_seed_flow_connects_to_the_port_chosen() {
        let nodes = parse(Flow::Seed);
        let client = nodes.iter().find(|node| node["type"] == "websocket-client").unwrap();
        assert_eq!(client["path"], "ws://localhost:4321/ws/echo");
    }
}
