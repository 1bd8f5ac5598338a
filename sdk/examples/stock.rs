//! HTTP: routes of the host's server, open to all or for administrators only. Metrics of one's own.
//!
//! The node keeps how much there is of what. Try it: `sdk/examples/run stock`, then
//! `curl -X PUT -d 5 localhost:1880/stock/apples`, `curl localhost:1880/stock/apples`, `curl localhost:1880/metrics`.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use flowbay_sdk::{Counter, Gauge, Request, Response, Role, object, prelude::*, value};

struct Stock {
    items: Mutex<BTreeMap<String, i64>>,
    changes: Counter,
    kinds: Gauge,
}

/// What one client may make the node keep.
const MAX_ITEMS: usize = 1_000;

#[node("stock", role = Role::Source, category = "network", outputs = 1)]
impl Node for Stock {
    type Config = NoConfig;

    fn new(_config: NoConfig, ctx: &Ctx) -> Result<Self, Error> {
        let items = ctx.restored().map_or_else(|| Ok(BTreeMap::new()), value::from_value)?;
        Ok(Self {
            items: Mutex::new(items),
            // In `GET /metrics` as `flowbay_stock_changes_total{node="…",type="stock",name="…"}`. Both go on over swaps.
            changes: ctx.counter("stock_changes_total", "Amounts that were set"),
            kinds: ctx.gauge("stock_kinds", "Things that there is an amount of"),
        })
    }

    // Routes leave with the node. An error here, because another node has the path, is in the log.
    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        ctx.register_public("GET", "/stock/:item")?;
        ctx.register_public("PUT", "/stock/:item")?;
        // The host answers it only to those it lets in: this machine, or whoever has the admin token.
        ctx.register_admin("DELETE", "/stock")
    }

    // Requests come several at a time. The host has bounded their size and the time they take.
    async fn on_request(&self, request: Request, ctx: &Ctx) -> Response {
        let item = request.value()["params"]["item"].as_str().unwrap_or_default();
        match request.value()["method"].as_str() {
            Some("GET") => match self.items().get(item) {
                // Anything but text and bytes is sent as JSON.
                Some(amount) => Response::status(200)
                    .header("content-type", "application/json")
                    .body(object!({ "item": item, "amount": *amount })),
                None => Response::status(404),
            },
            Some("PUT") => match str::from_utf8(request.body()).map(|text| text.trim().parse::<i64>()) {
                Ok(Ok(amount)) => self.put(item, amount, ctx),
                _ => Response::status(400).body("the body is an amount"),
            },
            _ => {
                self.items().clear();
                self.kinds.set(0);
                Response::status(204)
            }
        }
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(value::to_value(&*self.items())?))
    }
}

impl Stock {
    fn put(&self, item: &str, amount: i64, ctx: &Ctx) -> Response {
        {
            let mut items = self.items();
            if items.len() >= MAX_ITEMS && !items.contains_key(item) {
                return Response::status(507);
            }
            items.insert(item.to_owned(), amount);
            self.kinds.set(items.len() as i64);
        }
        self.changes.inc();
        let mut msg = Msg::with_payload(amount);
        msg.set("topic", item);
        ctx.send(msg);
        Response::status(204)
    }

    fn items(&self) -> MutexGuard<'_, BTreeMap<String, i64>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

export_plugin!(Stock);

#[cfg(test)]
mod tests {
    use flowbay_sdk::{Blob, testing::TestNode, value};

    use super::*;

    fn ask(node: &mut TestNode<Stock>, method: &str, body: &str) -> Value {
        let body = Blob::from(body.as_bytes());
        node.request(value!({ "method": method, "params": { "item": "apples" }, "body": body })).unwrap()
    }

    #[test]
    fn what_is_put_can_be_asked_for() {
        let mut node = TestNode::<Stock>::new(value!({}));
        assert_eq!(ask(&mut node, "GET", "")["status"], 404);
        assert_eq!(ask(&mut node, "PUT", "5\n")["status"], 204);
        assert_eq!(ask(&mut node, "GET", "")["body"], value!({ "item": "apples", "amount": 5 }));
        assert_eq!(node.next_sent().topic(), &Value::from("apples"));
        assert_eq!((node.metric("stock_changes_total"), node.metric("stock_kinds")), (Some(1), Some(1)));
        assert_eq!(ask(&mut node, "PUT", "many")["status"], 400);
    }

    #[test]
    fn administrators_have_a_route_of_their_own() {
        let mut node = TestNode::<Stock>::new(value!({}));
        assert!(node.routes().contains(&value!({ "kind": "admin", "method": "DELETE", "path": "/stock" })));
        ask(&mut node, "PUT", "5");
        assert_eq!(ask(&mut node, "DELETE", "")["status"], 204);
        assert_eq!(ask(&mut node, "GET", "")["status"], 404);
    }
}
