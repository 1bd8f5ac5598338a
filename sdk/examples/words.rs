//! Outputs: several of them, sequences, and messages that are neither passed on nor an error.
//!
//! The node takes a text apart: its words go to output 1 one after the other, a summary to output 2. Try it:
//! `sdk/examples/run words`.

use flowbay_sdk::{object, prelude::*};

struct Words;

/// Outputs are counted from 0 here, from 1 in the editor.
const WORDS: u32 = 0;
const SUMMARY: u32 = 1;

#[node("words", category = "sequence", inputs = 1, outputs = 2)]
impl Node for Words {
    type Config = NoConfig;

    fn new(_config: NoConfig, _ctx: &Ctx) -> Result<Self, Error> {
        Ok(Self)
    }

    async fn on_input(&self, msg: Msg, ctx: &Ctx) -> Result<(), Error> {
        let text = msg.payload().as_str().ok_or_else(|| Error::new("the payload is no text"))?;
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() {
            // Dropped: neither Complete nor Catch nodes hear of it.
            return Err(Error::ignored());
        }
        let sequence = words.iter().enumerate().map(|(index, word)| {
            // A clone shares all that is in the message until it is changed, and keeps its `_msgid`.
            let mut part = msg.clone();
            part.set("payload", *word);
            // What join nodes put a sequence together by.
            let id = msg.id().unwrap_or_default();
            part.set(
                "parts",
                object!({ "id": id, "index": index, "count": words.len(), "type": "string", "ch": " " }),
            );
            (WORDS, part)
        });
        // One call of Node-RED's `send`: in this order, and those without a `_msgid` would get one that they share.
        ctx.send_all(sequence);

        let mut summary = msg.clone();
        summary.set("payload", object!({ "words": words.len(), "bytes": text.len() }));
        ctx.send_to(SUMMARY, summary);
        Ok(())
    }

    fn save(&self) -> Result<Option<Value>, Error> {
        Ok(Some(Value::Null))
    }
}

export_plugin!(Words);

#[cfg(test)]
mod tests {
    use flowbay_sdk::testing::TestNode;

    use super::*;

    #[test]
    fn words_are_a_sequence_and_a_summary_follows() {
        let mut node = TestNode::<Words>::new(object!({}));
        node.input(object!({ "_msgid": "5f20", "payload": "to be  or", "topic": "Hamlet" }));
        let sent = node.sent();
        let words: Vec<_> =
            sent[..3].iter().map(|sent| (sent.port, sent.msg.payload().as_str().unwrap())).collect();
        assert_eq!(words, [(WORDS, "to"), (WORDS, "be"), (WORDS, "or")]);
        assert_eq!(sent[1].msg["parts"]["index"], 1);
        assert_eq!((sent[3].port, &sent[3].msg.payload()["words"]), (SUMMARY, &3.into()));
        assert!(sent.iter().all(|sent| sent.msg.id() == Some("5f20") && sent.msg.topic() == "Hamlet"));
    }

    #[test]
    fn an_empty_text_comes_to_nothing() {
        let mut node = TestNode::<Words>::new(object!({}));
        node.input(Msg::with_payload("  "));
        assert_eq!((node.sent().len(), node.completed().len(), node.failures().len()), (0, 0, 0));
    }
}
