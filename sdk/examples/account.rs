//! Config nodes: one of this plugin with credentials, used as an object; one of any plugin, read as a value.
//!
//! A node writes what a request needs into the message: who asks, and whom. Try it: `sdk/examples/run account`. (The
//! token stands in the flow file there, so that it runs by itself; `flowbay credentials set` puts it where it belongs.)

use flowbay_sdk::{Credential, Role, object, prelude::*};
use serde::Deserialize;

#[derive(Deserialize)]
struct AccountConfig {
    user: String,
}

/// An account that several nodes share. It is on no tab and has no wires.
struct Account {
    user: String,
    token: String,
}

#[node(
    "account",
    role = Role::Config,
    category = "config",
    // Kept out of the flow file, encrypted. `Password` never leaves the host again, not even to the editor.
    credentials = &[("token", Credential::Password)]
)]
impl Node for Account {
    type Config = AccountConfig;

    fn new(config: AccountConfig, ctx: &Ctx) -> Result<Self, Error> {
        let token = ctx.credentials()["token"].as_str().unwrap_or_default().to_owned();
        Ok(Self { user: config.user, token })
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(Value::Null))
    }
}

impl Account {
    /// What the nodes that use it call.
    fn authorization(&self) -> Result<String, Error> {
        // No secret in an error or in the log.
        if self.token.is_empty() {
            return Err(Error::new(format!("the account of {} has no token", self.user)));
        }
        Ok(format!("Bearer {}", self.token))
    }
}

/// A config node is named by its id.
#[derive(Deserialize)]
struct PrepareConfig {
    account: String,
    #[serde(default)]
    server: String,
}

struct Prepare(PrepareConfig);

#[node("prepare request", category = "network", inputs = 1, outputs = 1)]
impl Node for Prepare {
    type Config = PrepareConfig;

    fn new(config: PrepareConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Self(config))
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        // Looked up for each message, which costs little: after a hot swap it is another object. `None` also when the
        // id is one of another type, or of another plugin's type.
        let account =
            ctx.config_node::<Account>(&self.0.account).ok_or_else(|| Error::new("there is no account"))?;
        msg.set(
            "headers",
            object!({ "authorization": account.authorization()?, "x-user": account.user.as_str() }),
        );

        // Of another plugin: its properties as the flow file has them. Its credentials nobody else gets.
        if let Some(server) = ctx.config_value(&self.0.server) {
            msg.set("path", &server["path"]);
        }
        ctx.send(msg);
        Ok(())
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(Value::Null))
    }
}

export_plugin!(Account, Prepare);

#[cfg(test)]
mod tests {
    use flowbay_sdk::{testing::Setup, value};

    use super::*;

    #[test]
    fn a_request_says_who_asks() {
        let account = Setup::new().id("a1").config(value!({ "user": "ada" })).credential("token", "s3cret");
        // It is found by its id for as long as it is there.
        let _account = account.create::<Account>().unwrap();
        let node = Setup::new().config(value!({ "account": "a1", "server": "w1" }));
        let mut node = node.config_node("w1", value!({ "path": "/ws" })).create::<Prepare>().unwrap();
        node.input(Msg::with_payload("hello"));
        let sent = node.next_sent();
        assert_eq!(sent["headers"], value!({ "authorization": "Bearer s3cret", "x-user": "ada" }));
        assert_eq!(sent["path"], "/ws");
    }

    #[test]
    fn what_is_missing_is_an_error_of_the_message() {
        let _account = Setup::new().id("a2").config(value!({ "user": "bob" })).create::<Account>().unwrap();
        for (account, says) in [("a2", "the account of bob has no token"), ("a3", "there is no account")] {
            let mut node = Setup::new().config(value!({ "account": account })).create::<Prepare>().unwrap();
            node.input(Msg::new());
            assert_eq!(node.failures()[0].text, says);
        }
    }
}
