//! `flowbay status`: the answer of `GET /runtime` for people.

use std::fmt::Write as _;

use serde_json::Value;

use super::table::{aligned, harmless};

/// Connections that the text shows; `--json` has all that were asked for.
const CONNECTIONS_SHOWN: usize = 20;

/// The answer as text: the host, its plugins, its nodes, and the connections with the most that waits.
pub fn text(answer: &Value) -> String {
    let totals = &answer["totals"];
    let mut text = format!(
        "flowbay {}, process {}, up {}: {}\n",
        harmless(&cell(&answer["version"])),
        cell(&answer["pid"]),
        duration(answer["uptimeSeconds"].as_u64().unwrap_or_default()),
        harmless(&cell(&answer["state"])),
    );
    let missing: Vec<String> =
        list(&answer["missingTypes"]).iter().map(|name| harmless(&cell(name))).collect();
    if !missing.is_empty() {
        let _ = writeln!(text, "no plugin has the node types {}", missing.join(", "));
    }
    let _ = writeln!(
        text,
        "{} nodes ({} failed, {} congested, {} stuck), messages: {} waiting, {} in hand, {} refused",
        cell(&totals["nodes"]),
        cell(&totals["failed"]),
        cell(&totals["congested"]),
        cell(&totals["stuck"]),
        cell(&totals["waiting"]),
        cell(&totals["inHand"]),
        cell(&totals["refused"]),
    );
    let _ = writeln!(
        text,
        "{} connections, to be sent: {} messages, {} bytes",
        cell(&totals["connections"]),
        cell(&totals["queued"]),
        cell(&totals["queuedBytes"]),
    );
    section(&mut text, &plugins(answer));
    for plugin in list(&answer["plugins"]) {
        if let Some(error) = plugin["lastError"].as_str() {
            let _ = writeln!(text, "refused: {}", harmless(error));
        }
    }
    section(&mut text, &nodes(answer));
    more(&mut text, &totals["nodes"], list(&answer["nodes"]).len(), "nodes");
    section(&mut text, &connections(answer));
    let shown = list(&answer["connections"]).len().min(CONNECTIONS_SHOWN);
    more(&mut text, &totals["connections"], shown, "connections");
    text
}

fn section<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    if rows.len() > 1 {
        text.push('\n');
        text.push_str(&aligned(rows));
    }
}

fn more(text: &mut String, total: &Value, shown: usize, what: &str) {
    let left = total.as_u64().unwrap_or_default().saturating_sub(shown as u64);
    if left > 0 {
        let _ = writeln!(text, "and {left} more {what}");
    }
}

fn plugins(answer: &Value) -> Vec<[String; 6]> {
    let mut rows =
        vec![["PLUGIN", "VERSION", "GENERATION", "IN USE", "SWAPS", "LAST SWAP"].map(str::to_owned)];
    for plugin in list(&answer["plugins"]) {
        let in_use: Vec<String> = list(&plugin["generationsInUse"]).iter().map(cell).collect();
        let last = match &plugin["lastSwap"] {
            Value::Null => "-".to_owned(),
            last => format!(
                "{} ago, {} ms",
                duration(last["secondsAgo"].as_u64().unwrap_or_default()),
                cell(&last["tookMs"])
            ),
        };
        let swaps = match plugin["undone"].as_u64() {
            Some(undone @ 1..) => format!("{} ({undone} undone)", cell(&plugin["swaps"])),
            _ => cell(&plugin["swaps"]),
        };
        rows.push([
            cell(&plugin["name"]),
            cell(&plugin["version"]),
            cell(&plugin["generation"]),
            if in_use.is_empty() { "-".to_owned() } else { in_use.join(", ") },
            swaps,
            last,
        ]);
    }
    rows
}

fn nodes(answer: &Value) -> Vec<[String; 10]> {
    let head = ["NODE", "TYPE", "NAME", "TAB", "STATE", "CODE", "WAITING", "IN HAND", "REFUSED", "SESSIONS"];
    let mut rows = vec![head.map(str::to_owned)];
    for node in list(&answer["nodes"]) {
        rows.push([
            cell(&node["id"]),
            cell(&node["type"]),
            cell(&node["name"]),
            cell(&node["tab"]),
            cell(&node["state"]),
            code(&node["plugin"]),
            cell(&node["waiting"]),
            cell(&node["inHand"]),
            cell(&node["refused"]),
            cell(&node["sessions"]["count"]),
        ]);
    }
    rows
}

fn connections(answer: &Value) -> Vec<[String; 7]> {
    let mut rows = vec![["SESSION", "NODE", "PEER", "QUEUED", "BYTES", "CODE", "OPEN"].map(str::to_owned)];
    for connection in list(&answer["connections"]).iter().take(CONNECTIONS_SHOWN) {
        rows.push([
            cell(&connection["session"]),
            cell(&connection["node"]),
            cell(&connection["peer"]),
            cell(&connection["queued"]),
            cell(&connection["queuedBytes"]),
            code(&connection["plugin"]),
            duration(connection["seconds"].as_u64().unwrap_or_default()),
        ]);
    }
    rows
}

/// `plugin 3`, with a word when there is newer code.
fn code(plugin: &Value) -> String {
    if !plugin.is_object() {
        return "-".to_owned();
    }
    let old = if plugin["current"] == false { " (old)" } else { "" };
    format!("{} {}{old}", cell(&plugin["name"]), cell(&plugin["generation"]))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Seconds as people say them: the two largest units.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_have_two_units() {
        for (seconds, expected) in
            [(0, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (7_384, "2 h 3 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn an_answer_of_another_version_is_shown_as_far_as_it_goes() {
        assert!(text(&json!({})).starts_with("flowbay -, process -, up 0 s: -\n"));
        let odd = json!({"nodes": [{"id": "a\u{1b}[2J"}], "plugins": 5, "connections": [null],
            "totals": {"nodes": 3, "connections": 1}});
        let text = text(&odd);
        assert!(text.contains("\na\\u{1b}[2J  -") && text.contains("and 2 more nodes"), "{text}");
        assert!(!text.contains("more connections"), "{text}");
    }
}
