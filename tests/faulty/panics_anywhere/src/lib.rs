//! A node type that panics in the callback that its configuration names, and one that reaches its `on_direct`.
//!
//! | type | configuration | what it does |
//! |---|---|---|
//! | `panics` | `at` | passes messages on, and everything else, except that it panics in one place |
//! | `delivers` | `to` | gives its messages to the node with that id, not through a wire |
//!
//! The places: `constructor`, `config` (its drop, in the constructor), `restore`, `start`, `run`, `task`, `timer`,
//! `task-drop`, `input`, `later`, `input-drop`, `direct`, `upgrade`, `request`, `request-later`, `request-drop`,
//! `connection`, `connection-drop`, `lost`, `save`, `close`, `close-later`, `drop`. The node answers requests at
//! `/panics` and upgrades at `/panics-too`.

#![forbid(unsafe_code)]

use flowbay_sdk::{Connection, ConnectionEnd, Request, Response, UpgradeAnswer, UpgradeRequest, prelude::*};

/// The configuration, and the node.
#[derive(serde::Deserialize)]
struct Config {
    at: String,
}

impl Drop for Config {
    fn drop(&mut self) {
        self.at("config");
    }
}

impl Config {
    fn at(&self, place: &str) {
        if self.at == place {
            panic!("panics at {place}");
        }
    }
}

/// Panics when it is dropped, if that is the place.
struct Guard(bool, &'static str);

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0 {
            panic!("panics at {}", self.1);
        }
    }
}

struct Panics(Config);

impl Panics {
    fn guard(&self, place: &'static str) -> Guard {
        Guard(self.0.at == place, place)
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        self.0.at("drop");
    }
}

#[node("panics", inputs = 1, outputs = 1)]
impl Node for Panics {
    type Config = Config;

    fn new(config: Config, ctx: &Ctx) -> Result<Self, Error> {
        config.at("constructor");
        if config.at == "config" {
            return Err(Error::new("not reached: the configuration is dropped first"))
                .inspect_err(|_| drop(config));
        }
        if ctx.restored().is_some() {
            config.at("restore");
        }
        Ok(Panics(config))
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        self.0.at("start");
        ctx.register_public("GET", "/panics")?;
        ctx.register_upgrade("/panics-too")?;
        let (task, timer) = (self.guard("task"), self.guard("timer"));
        let held = self.guard("task-drop");
        if task.0 {
            ctx.spawn(async move { drop(task) });
        }
        let clock = ctx.clone();
        if timer.0 {
            ctx.spawn(async move {
                clock.sleep_ms(1).await;
                drop(timer);
            });
        }
        if held.0 {
            ctx.spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            });
        }
        ctx.sleep_ms(1).await;
        self.0.at("run");
        Ok(())
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        self.0.at("input");
        let held = self.guard("input-drop");
        if held.0 {
            ctx.log(flowbay_sdk::LogLevel::Info, "holds a message");
            std::future::pending::<()>().await;
        }
        ctx.sleep_ms(1).await;
        self.0.at("later");
        ctx.send(msg);
        Ok(())
    }

    async fn on_direct(&self, _msg: Msg, _ctx: &Ctx) -> Result<(), Error> {
        self.0.at("direct");
        Ok(())
    }

    fn on_upgrade(&self, _request: UpgradeRequest, _ctx: &Ctx) -> UpgradeAnswer {
        self.0.at("upgrade");
        UpgradeAnswer::accept()
    }

    async fn on_request(&self, _request: Request, ctx: &Ctx) -> Response {
        self.0.at("request");
        let held = self.guard("request-drop");
        if held.0 {
            ctx.log(flowbay_sdk::LogLevel::Info, "holds a request");
            std::future::pending::<()>().await;
        }
        ctx.sleep_ms(1).await;
        self.0.at("request-later");
        Response::status(200)
    }

    async fn on_connection(&self, _connection: Connection, ctx: &Ctx) -> ConnectionEnd {
        self.0.at("connection");
        self.0.at("lost");
        let held = self.guard("connection-drop");
        if held.0 {
            ctx.log(flowbay_sdk::LogLevel::Info, "holds a connection");
        }
        std::future::pending().await
    }

    fn on_connection_lost(&self, _session: &str, _ctx: &Ctx) {
        if self.0.at == "lost" {
            panic!("panics at lost, again");
        }
    }

    async fn on_close(&self, _removed: bool, ctx: &Ctx) {
        self.0.at("close");
        ctx.sleep_ms(1).await;
        self.0.at("close-later");
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        self.0.at("save");
        Ok(Some(Value::Null))
    }
}

#[derive(serde::Deserialize)]
struct DeliversConfig {
    to: String,
}

/// Gives its messages to another node.
struct Delivers(DeliversConfig);

#[node("delivers", inputs = 1)]
impl Node for Delivers {
    type Config = DeliversConfig;

    fn new(config: DeliversConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Delivers(config))
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        ctx.deliver(&self.0.to, msg);
        Ok(())
    }
}

export_plugin!(Panics, Delivers);
