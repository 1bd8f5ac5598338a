//! Messages: reading and setting by property path, into and from Rust types, buffers and strings without a copy.
//!
//! The node adds up an order. Try it: `sdk/examples/run order`.

use flowbay_sdk::{PropertyPath, Str, prelude::*, value};
use serde::{Deserialize, Serialize};

/// What is read from the message. What is not named here is not looked at.
#[derive(Deserialize)]
struct Order {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    name: Str,
    price: f64,
    #[serde(default = "one")]
    pieces: u32,
}

fn one() -> u32 {
    1
}

/// What is written into it.
#[derive(Serialize)]
struct Bill {
    total: f64,
    dearest: Option<Str>,
}

struct Total {
    // Parsed once, used for every message.
    customer: PropertyPath,
    bill: PropertyPath,
}

#[node("order total", category = "function", inputs = 1, outputs = 1)]
impl Node for Total {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Self {
            customer: PropertyPath::parse("payload.customers[0].name")?,
            bill: PropertyPath::parse("bill.total")?,
        })
    }

    async fn on_input(&self, mut msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        // From a value into a type. An error says where: "items[1].price: …".
        let order: Order = value::from_value(msg.payload())?;
        let total = order.items.iter().map(|item| item.price * f64::from(item.pieces)).sum();
        let dearest = order.items.iter().max_by(|a, b| a.price.total_cmp(&b.price));

        // From a type into a value. `Str` is text that is shared, so the name is not copied.
        let bill = Bill { total, dearest: dearest.map(|item| item.name.clone()) };
        msg.set("bill", value::to_value(&bill)?);

        // By path: what is missing on the way reads as nothing, and is made when it is set.
        if let Some(name) = msg.get_path(&self.customer) {
            msg.set_path(&PropertyPath::parse("bill.address[0]")?, name)?;
        }
        if msg.get_path(&self.bill) == Some(Value::Float(0.0)) {
            msg.delete_path(&self.bill);
        }

        // A buffer: its bytes are read where they lie. A clone of the value is one more reference to them.
        let scan = msg.payload()["scan"].clone();
        if let Some(bytes) = scan.as_bytes() {
            let sum =
                bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
            msg.set("checksum", sum);
            msg.set("scan", scan);
        }
        ctx.send(msg);
        Ok(())
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(Value::Null))
    }
}

export_plugin!(Total);

#[cfg(test)]
mod tests {
    use flowbay_sdk::{Blob, object, testing::TestNode, value};

    use super::*;

    #[test]
    fn an_order_is_added_up() {
        let mut node = TestNode::<Total>::new(object!({}));
        let items =
            value!([{ "name": "nail", "price": 0.5, "pieces": 100 }, { "name": "hammer", "price": 12 }]);
        node.input(Msg::with_payload(value!({ "items": items, "customers": [{ "name": "Ada" }] })));
        let bill = node.next_sent()["bill"].clone();
        assert_eq!(bill, value!({ "total": 62, "dearest": "hammer", "address": ["Ada"] }));
    }

    #[test]
    fn an_error_says_where_it_is() {
        let mut node = TestNode::<Total>::new(object!({}));
        node.input(Msg::with_payload(value!({ "items": [{ "name": "nail", "price": "cheap" }] })));
        assert!(node.failures()[0].text.contains("items[0].price"));
    }

    #[test]
    fn a_buffer_is_not_copied() {
        let mut node = TestNode::<Total>::new(object!({}));
        let scan = Blob::from(&[1, 2, 3][..]);
        node.input(Msg::with_payload(value!({ "items": [], "scan": scan.clone() })));
        let sent = node.next_sent();
        assert!(matches!(&sent["scan"], Value::Bytes(bytes) if bytes.ptr_eq(&scan)));
        assert_eq!(sent["checksum"], 1026);
    }
}
