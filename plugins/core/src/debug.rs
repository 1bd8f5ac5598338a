//! `debug`: shows messages, or parts of them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use flowbay_sdk::{LogLevel, Object, PropertyPath, Str, lenient, prelude::*};
use serde::Deserialize;

use crate::{handover, inspect::inspect};

/// Longest status text, in characters; what is longer is cut and ends in dots.
const STATUS_LENGTH: usize = 32;

/// While messages come faster than this, their number is not shown for each.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);

/// After this the number is shown at last.
const COUNT_DELAY: Duration = Duration::from_millis(200);

/// Of the state: `{version, messages, unshown}` of a node that counts, `{version, fill, shape, text}` of one that
/// shows something else as its status and has done so, else `{version}`.
const VERSION: i64 = 1;

/// The node's properties. `tosidebar` is not among them: as long as there is no sidebar, an active node shows its
/// messages in the terminal.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Absent means true.
    active: Value,
    /// Node-RED's console output; matters here for a node that is not active.
    #[serde(deserialize_with = "lenient::boolean")]
    console: bool,
    #[serde(deserialize_with = "lenient::boolean")]
    tostatus: bool,
    /// `false` for the payload, `true` for the whole message, else a property.
    #[serde(deserialize_with = "lenient::string")]
    complete: String,
    #[serde(rename = "targetType", deserialize_with = "lenient::string")]
    target_type: String,
    #[serde(rename = "statusVal", deserialize_with = "lenient::string")]
    status_val: String,
    #[serde(rename = "statusType", deserialize_with = "lenient::string")]
    status_type: String,
}

/// Shows messages in the terminal, and a short form as its status.
pub struct Debug {
    name: Str,
    active: bool,
    console: bool,
    shown: Shown,
    status: Option<ShownStatus>,
}

/// What is shown of a message.
#[derive(Debug)]
enum Shown {
    Message,
    Property(Property),
}

/// A property of the message.
#[derive(Debug)]
struct Property {
    /// As in the flow file.
    name: Str,
    /// `None` when the expression is malformed: then there is never a value.
    path: Option<PropertyPath>,
}

impl Property {
    fn new(name: &str) -> Self {
        Self { name: name.into(), path: PropertyPath::parse_msg(name).ok() }
    }

    fn read(&self, msg: &Msg) -> Option<Value> {
        msg.get_path(self.path.as_ref()?)
    }
}

/// What is shown as status.
enum ShownStatus {
    /// What the node shows otherwise, an error in red, another node's status as it is.
    Auto(Mutex<Option<StatusText>>),
    /// A property.
    Property(Property, Mutex<Option<StatusText>>),
    /// The number of messages.
    Count(Arc<Count>),
}

/// A status; published when it differs from the last one.
#[derive(Debug, Clone, PartialEq)]
struct StatusText {
    fill: String,
    shape: String,
    text: String,
}

#[node(
    "debug",
    category = "common",
    color = "#87a980",
    icon = "debug.svg",
    align = "right",
    inputs = 1,
    html = include_str!("../html/debug.html")
)]
impl Node for Debug {
    type Config = Config;

    fn new(config: Config, ctx: &Ctx) -> Result<Self, Error> {
        let shown = config.shown()?;
        let status = config.status()?;
        if let Some(state) = ctx.restored() {
            handover::check(state, VERSION)?;
            if let Some(status) = &status {
                status.restore(state);
            }
        }
        let active = !matches!(&config.active, Value::Bool(false)) && config.active != "false";
        Ok(Self { name: ctx.name().into(), active, console: config.console, shown, status })
    }

    async fn run(&self, ctx: &Ctx) -> Result<(), Error> {
        if let Some(ShownStatus::Count(count)) = &self.status
            && count.is_unshown()
        {
            count.publish(ctx);
        }
        Ok(())
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        if is_status_of(&msg, ctx.id()) {
            return Ok(());
        }
        if let Some(status) = &self.status {
            self.show_status(status, &msg, ctx);
        }
        if self.active {
            ctx.debug_event(self.event(msg).into());
        } else if self.console {
            let value = match &self.shown {
                Shown::Message => Some(msg.into()),
                Shown::Property(property) => property.read(&msg),
            };
            ctx.log(
                LogLevel::Info,
                value.map_or_else(|| "undefined".to_owned(), |value| value.to_js_string()),
            );
        }
        Ok(())
    }

    async fn on_close(&self, _removed: bool, ctx: &Ctx) {
        if self.status.is_some() {
            ctx.status(Status::new());
        }
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(saved(self.status.as_ref())))
    }
}

fn saved(status: Option<&ShownStatus>) -> Value {
    let mut state = handover::state(VERSION);
    match status {
        None => {}
        Some(ShownStatus::Count(count)) => {
            state
                .insert("messages", i64::try_from(count.messages.load(Ordering::SeqCst)).unwrap_or(i64::MAX));
            state.insert("unshown", count.is_unshown());
        }
        Some(ShownStatus::Auto(last) | ShownStatus::Property(_, last)) => {
            if let Some(last) = &*last.lock().unwrap_or_else(PoisonError::into_inner) {
                state.insert("fill", &last.fill);
                state.insert("shape", &last.shape);
                state.insert("text", &last.text);
            }
        }
    }
    state.into()
}

impl ShownStatus {
    /// Goes on from a predecessor's state.
    fn restore(&self, state: &Value) {
        match self {
            ShownStatus::Count(count) => {
                let messages = state.get("messages").and_then(Value::as_i64).unwrap_or(0);
                count.messages.store(u64::try_from(messages).unwrap_or(0), Ordering::SeqCst);
                let unshown = state.get("unshown").and_then(Value::as_bool).unwrap_or(true);
                count.shown.store(!unshown, Ordering::SeqCst);
            }
            ShownStatus::Auto(last) | ShownStatus::Property(_, last) => {
                let part = |name: &str| state.get(name).and_then(Value::as_str).map(str::to_owned);
                if let (Some(fill), Some(shape), Some(text)) = (part("fill"), part("shape"), part("text")) {
                    let shown = Some(StatusText { fill, shape, text });
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = shown;
                }
            }
        }
    }
}

impl Config {
    fn shown(&self) -> Result<Shown, Error> {
        if self.target_type == "jsonata" {
            return Err(Error::new("JSONata expressions are not supported (property complete)"));
        }
        Ok(match self.complete.as_str() {
            "true" => Shown::Message,
            "" | "false" => Shown::Property(Property::new("payload")),
            name => Shown::Property(Property::new(name)),
        })
    }

    fn status(&self) -> Result<Option<ShownStatus>, Error> {
        if !self.tostatus {
            return Ok(None);
        }
        Ok(Some(match self.status_type.as_str() {
            "" | "auto" => ShownStatus::Auto(Mutex::default()),
            "counter" => ShownStatus::Count(Arc::default()),
            "jsonata" => {
                return Err(Error::new("JSONata expressions are not supported (property statusVal)"));
            }
            _ => {
                let name = match (self.status_val.as_str(), self.complete.as_str()) {
                    ("", "" | "false") => "payload",
                    ("", complete) => complete,
                    (name, _) => name,
                };
                ShownStatus::Property(Property::new(name), Mutex::default())
            }
        }))
    }
}

/// Whether the message is the status of this node itself, which would go round for ever.
fn is_status_of(msg: &Msg, id: &str) -> bool {
    msg.get("status").is_some_and(|status| status["source"]["id"] == *id)
}

impl Debug {
    /// What is published; takes the message, so that showing it copies nothing.
    fn event(&self, msg: Msg) -> Object {
        let mut event = Object::with_capacity(6);
        event.insert("name", &self.name);
        if let Some(topic) = msg.get("topic") {
            event.insert("topic", topic);
        }
        if let Some(id) = msg.get("_msgid") {
            event.insert("msgid", id);
        }
        let value = match &self.shown {
            Shown::Message => Some(msg.into()),
            Shown::Property(property) => {
                event.insert("property", &property.name);
                property.read(&msg)
            }
        };
        event.insert("absent", value.is_none());
        event.insert("value", value);
        event
    }

    fn show_status(&self, status: &ShownStatus, msg: &Msg, ctx: &Ctx) {
        let (last, next) = match status {
            ShownStatus::Count(count) => return count.add(ctx),
            ShownStatus::Property(property, last) => (last, StatusText::of(property.read(msg).as_ref())),
            ShownStatus::Auto(last) => {
                let value = match &self.shown {
                    Shown::Message => msg.get("payload").cloned(),
                    Shown::Property(property) => property.read(msg),
                };
                (last, StatusText::of(value.as_ref()).or_of_message(msg))
            }
        };
        let next = next.cut();
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() != Some(&next) {
            ctx.status(Status::new().fill(&next.fill).shape(&next.shape).text(&next.text));
            *last = Some(next);
        }
    }
}

impl StatusText {
    /// A value in grey, or the status that it is.
    fn of(value: Option<&Value>) -> Self {
        let part = |name: &str| value?.get(name).map(Value::to_js_string).filter(|text| !text.is_empty());
        if let (Some(fill), Some(shape), Some(text)) = (part("fill"), part("shape"), part("text")) {
            return Self { fill, shape, text };
        }
        let text = match value {
            // One more than is shown, so that it is seen to be cut.
            Some(Value::Str(text)) => text.chars().take(STATUS_LENGTH + 1).collect(),
            value => inspect(value, STATUS_LENGTH + 1),
        };
        Self { fill: "grey".to_owned(), shape: "dot".to_owned(), text }
    }

    /// An error or a status in the message goes before its value.
    fn or_of_message(mut self, msg: &Msg) -> Self {
        if let Some(error) = msg.get("error") {
            self.fill = "red".to_owned();
            self.text = error.get("message").map_or_else(|| "undefined".to_owned(), Value::to_js_string);
        }
        if let Some(status) = msg.get("status") {
            let part = |name: &str, default: &str| match status.get(name) {
                None | Some(Value::Null) => default.to_owned(),
                Some(Value::Str(text)) if text.is_empty() => default.to_owned(),
                Some(value) => value.to_js_string(),
            };
            self = Self { fill: part("fill", "grey"), shape: part("shape", "ring"), text: part("text", "") };
        }
        self
    }

    fn cut(mut self) -> Self {
        if let Some((end, _)) = self.text.char_indices().nth(STATUS_LENGTH) {
            self.text.truncate(end);
            self.text.push_str("...");
        }
        self
    }
}

/// How many messages there have been.
#[derive(Default)]
struct Count {
    messages: AtomicU64,
    last: Mutex<Option<Instant>>,
    /// Whether the number will be shown soon.
    soon: AtomicBool,
    /// Whether the number is shown as it is now, be it by a predecessor.
    shown: AtomicBool,
}

impl Count {
    fn add(self: &Arc<Self>, ctx: &Ctx) {
        self.messages.fetch_add(1, Ordering::SeqCst);
        self.shown.store(false, Ordering::SeqCst);
        let now = Instant::now();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        if last.is_none_or(|last| now - last > COUNT_INTERVAL) {
            self.publish(ctx);
        } else if !self.soon.swap(true, Ordering::Relaxed) {
            let (count, task_ctx) = (self.clone(), ctx.clone());
            ctx.spawn(async move {
                task_ctx.sleep(COUNT_DELAY).await;
                count.soon.store(false, Ordering::Relaxed);
                count.publish(&task_ctx);
            });
        }
    }

    fn is_unshown(&self) -> bool {
        !self.shown.load(Ordering::SeqCst)
    }

    fn publish(&self, ctx: &Ctx) {
        // First: a message that comes now makes it false again.
        self.shown.store(true, Ordering::SeqCst);
        let text = self.messages.load(Ordering::SeqCst).to_string();
        ctx.status(Status::new().fill("blue").shape("ring").text(&text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::fake::{json, msg};

    fn config(text: &str) -> Config {
        flowbay_sdk::value::from_value(&json(text)).unwrap()
    }

    fn debug(text: &str) -> Debug {
        let config = config(text);
        Debug {
            name: "d".into(),
            active: true,
            console: false,
            shown: config.shown().unwrap(),
            status: config.status().unwrap(),
        }
    }

    #[test]
    fn the_event_holds_what_is_shown() {
        let message = r#"{"_msgid":"1","topic":"t","payload":{"a":[1]}}"#;
        for (config, expected) in [
            ("{}", r#"{"property":"payload","absent":false,"value":{"a":[1]}}"#),
            (r#"{"complete":"false"}"#, r#"{"property":"payload","absent":false,"value":{"a":[1]}}"#),
            (r#"{"complete":false}"#, r#"{"property":"payload","absent":false,"value":{"a":[1]}}"#),
            (r#"{"complete":"payload.a[0]"}"#, r#"{"property":"payload.a[0]","absent":false,"value":1}"#),
            (r#"{"complete":"no.no"}"#, r#"{"property":"no.no","absent":true,"value":null}"#),
            (r#"{"complete":"a["}"#, r#"{"property":"a[","absent":true,"value":null}"#),
        ] {
            let mut expected = json(expected);
            let object = expected.as_object_mut().unwrap();
            object.insert("name", "d");
            object.insert("topic", "t");
            object.insert("msgid", "1");
            assert_eq!(Value::from(debug(config).event(msg(message))), expected, "{config}");
        }
    }

    #[test]
    fn the_whole_message_is_shown_without_a_property() {
        for config in [r#"{"complete":"true","targetType":"full"}"#, r#"{"complete":true}"#] {
            let event = debug(config).event(msg(r#"{"payload":1}"#));
            assert_eq!(event["value"], json(r#"{"payload":1}"#));
            assert!(!event.contains_key("property") && !event.contains_key("topic"), "{event:?}");
        }
    }

    #[test]
    fn jsonata_is_refused() {
        assert!(config(r#"{"complete":"$now()","targetType":"jsonata"}"#).shown().is_err());
        assert!(config(r#"{"tostatus":true,"statusType":"jsonata","statusVal":"1"}"#).status().is_err());
        assert!(config(r#"{"tostatus":false,"statusType":"jsonata"}"#).status().unwrap().is_none());
    }

    #[test]
    fn a_status_is_short() {
        let text = |value: &str| StatusText::of(Some(&json(value))).cut();
        let grey = |text: &str| StatusText { fill: "grey".into(), shape: "dot".into(), text: text.into() };
        assert_eq!(text(r#""abc""#), grey("abc"));
        assert_eq!(text(r#""äääääääääääääääääääääääääääääääää""#), grey(&format!("{}...", "ä".repeat(32))));
        assert_eq!(
            text(r#"{"a":"abcdefghijklmnopqrstuvwxyz0123456789"}"#),
            grey("{ a: 'abcdefghijklmnopqrstuvwxyz...")
        );
        assert_eq!(text(r#"{"fill":"red","shape":"ring","text":5}"#).text, "5");
        assert_eq!(StatusText::of(None).text, "undefined");
    }

    #[test]
    fn errors_and_statuses_show_as_themselves() {
        let auto = |message: &str| {
            let StatusText { fill, shape, text } = StatusText::of(None).or_of_message(&msg(message));
            [fill, shape, text].join(" ")
        };
        assert_eq!(auto(r#"{"error":{"message":"bad"}}"#), "red dot bad");
        assert_eq!(auto(r#"{"status":{"fill":"green","text":"on"}}"#), "green ring on");
        assert_eq!(auto(r#"{"status":5}"#), "grey ring ");
    }

    #[test]
    fn its_own_status_is_not_shown_again() {
        let message = msg(r#"{"status":{"source":{"id":"x"}}}"#);
        assert!(is_status_of(&message, "x") && !is_status_of(&message, "y"));
    }

    #[test]
    fn a_successor_goes_on_with_the_number_and_the_status() {
        let counts = || config(r#"{"tostatus":true,"statusType":"counter"}"#).status().unwrap().unwrap();
        for (shown, unshown) in [(true, false), (false, true)] {
            let old = counts();
            let ShownStatus::Count(count) = &old else { panic!("it counts") };
            count.messages.store(5, Ordering::SeqCst);
            count.shown.store(shown, Ordering::SeqCst);
            let new = counts();
            new.restore(&saved(Some(&old)));
            let ShownStatus::Count(count) = &new else { panic!("it counts") };
            assert_eq!((count.messages.load(Ordering::SeqCst), count.is_unshown()), (5, unshown));
        }
        let text = StatusText { fill: "red".to_owned(), shape: "dot".to_owned(), text: "t".to_owned() };
        let new = ShownStatus::Auto(Mutex::default());
        new.restore(&saved(Some(&ShownStatus::Auto(Mutex::new(Some(text.clone()))))));
        let ShownStatus::Auto(last) = new else { panic!("it is what it was") };
        assert_eq!(last.into_inner().unwrap(), Some(text));
        assert!(handover::check(&saved(None), VERSION).is_ok());
    }
}
