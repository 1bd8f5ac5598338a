//! The `headers` property of a client: from the flow file to name and value.

use flowbay_sdk::Value;

/// The headers to send, in order. `env` looks up environment variables. Entries without a name or a value are left
/// out; a later entry replaces an earlier one of the same name.
pub fn resolve(property: &Value, env: impl Fn(&str) -> Option<Value>) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for entry in property.as_array().into_iter().flatten() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let name = match text("keyType") {
            "other" => text("keyValue"),
            known => known,
        };
        let value = match text("valueType") {
            "other" => text("valueValue").to_owned(),
            "env" => env_expression(text("valueValue"), &env),
            known => known.to_owned(),
        };
        if name.is_empty() || value.is_empty() {
            continue;
        }
        match headers.iter_mut().find(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
            Some(earlier) => *earlier = (name.to_owned(), value),
            None => headers.push((name.to_owned(), value)),
        }
    }
    headers
}

/// What an environment expression stands for: the name of a variable, or text with `${NAME}` in it.
fn env_expression(expression: &str, env: impl Fn(&str) -> Option<Value>) -> String {
    let variable = |name: &str| match env(name) {
        None | Some(Value::Null) => String::new(),
        Some(value) => value.to_js_string(),
    };
    if !expression.contains("${") {
        return variable(expression);
    }
    let mut text = String::with_capacity(expression.len());
    let mut rest = expression;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start + 2..].find('}').filter(|length| *length > 0) else { break };
        text.push_str(&rest[..start]);
        text.push_str(&variable(&rest[start + 2..start + 2 + length]));
        rest = &rest[start + 2 + length + 1..];
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<Value> {
        match name {
            "TOKEN" => Some(Value::from("secret")),
            "PORT" => Some(Value::from(80)),
            _ => None,
        }
    }

    fn check(entries: &str, expected: &[(&str, &str)]) {
        let headers = resolve(&Value::from_json(entries.as_bytes()).unwrap(), env);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(headers, expected, "{entries}");
    }

    #[test]
    fn name_and_value_come_from_the_entry_or_its_type() {
        check(
            r#"[{"keyType":"other","keyValue":"X-A","valueType":"other","valueValue":"1"},
                {"keyType":"Authorization","keyValue":"","valueType":"Basic x","valueValue":""}]"#,
            &[("X-A", "1"), ("Authorization", "Basic x")],
        );
    }

    #[test]
    fn values_come_from_the_environment() {
        let entry = |value: &str| {
            format!(r#"[{{"keyType":"other","keyValue":"X","valueType":"env","valueValue":"{value}"}}]"#)
        };
        check(&entry("TOKEN"), &[("X", "secret")]);
        check(&entry("${TOKEN}"), &[("X", "secret")]);
        check(&entry("Bearer ${TOKEN}:${PORT}!"), &[("X", "Bearer secret:80!")]);
        check(&entry("a${NONE}b"), &[("X", "ab")]);
        check(&entry("${TOKEN"), &[("X", "${TOKEN")]);
        check(&entry("${}"), &[("X", "${}")]);
        check(&entry("NONE"), &[]);
    }

    #[test]
    fn incomplete_entries_are_left_out_and_later_ones_replace() {
        check(
            r#"[{"keyType":"other","keyValue":"","valueType":"other","valueValue":"1"},
                {"keyType":"other","keyValue":"A","valueType":"other","valueValue":""},
                {"keyType":"other","keyValue":"B","valueType":"other","valueValue":"1"},
                {"keyType":"other","keyValue":"C","valueType":"other","valueValue":"2"},
                {"keyType":"other","keyValue":"b","valueType":"other","valueValue":"3"}, null, 7]"#,
            &[("b", "3"), ("C", "2")],
        );
    }

    #[test]
    fn what_is_no_list_has_no_headers() {
        for property in ["null", "{}", "\"x\"", "[]"] {
            check(property, &[]);
        }
    }
}
