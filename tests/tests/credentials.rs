//! Credentials: read and written as Node-RED does, given to nodes, shown to nobody.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use flowbay_tests::harness::{
    Client, Finished, Flow, Host, HostBuilder, flowbay, flowbay_given, scratch_folder,
};
use serde_json::{Value, json};

const SECRET: &str = "a secret with $igns and ünicode";
const PASSWORD: &str = "sesame-opens-the-cave";

/// A way in and out through a counter and a node that shows its credentials.
fn flow() -> Flow {
    Flow::new()
        .node("count", "counter", "show", json!({}))
        .node("show", "shows-credentials", "out", json!({}))
        .io("count")
}

/// A host with the flow, a secret in the file `secret`, and this credentials file.
fn host_with(credentials: impl Into<String>) -> HostBuilder {
    Host::builder()
        .plugin("bad-node")
        .flow(&flow())
        .file("secret", format!("{SECRET}\n"))
        .file("flows_cred.json", credentials)
        .setting("credential_secret_file", "secret")
}

/// The credentials that the node has, and how many messages passed the node before it.
fn shown(client: &mut Client) -> (Value, i64) {
    client.send_json(&json!({}));
    let mut msg = client.recv_json();
    (msg["payload"].take(), msg["count"].as_i64().unwrap())
}

/// Runs `flowbay credentials` with the secret from the file `secret`.
fn credentials(folder: &Path, arguments: &str, input: &str) -> Finished {
    let mut all = vec!["credentials"];
    all.extend(arguments.split(' '));
    all.extend(["--credential-secret-file", "secret"]);
    flowbay_given(folder, &all, input)
}

/// As [`credentials`], and nothing is wrong. Returns what it prints.
fn done(folder: &Path, arguments: &str, input: &str) -> String {
    let finished = credentials(folder, arguments, input);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{arguments}: {finished:?}");
    finished.stdout
}

/// A folder with the flow file and a secret.
fn folder() -> tempfile::TempDir {
    let folder = scratch_folder();
    std::fs::write(folder.path().join("flows.json"), flow().to_json()).unwrap();
    std::fs::write(folder.path().join("secret"), SECRET).unwrap();
    folder
}

/// What a program makes of `input`; `None` when there is no such program.
fn piped(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let child =
        Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok();
    let Some(mut child) = child else {
        eprintln!("skipped: there is no {program}");
        return None;
    };
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    Some(output.stdout)
}

fn sha256(secret: &str) -> Option<String> {
    let digest = piped("openssl", &["dgst", "-sha256", "-r"], secret.as_bytes())?;
    Some(String::from_utf8(digest).unwrap()[..64].to_owned())
}

/// The credentials file that Node-RED would write, by OpenSSL.
fn sealed(secret: &str, credentials: &Value) -> Option<String> {
    let (key, iv) = (sha256(secret)?, "00112233445566778899aabbccddeeff");
    let arguments = ["enc", "-aes-256-ctr", "-K", &key, "-iv", iv, "-base64", "-A"];
    let text = String::from_utf8(piped("openssl", &arguments, credentials.to_string().as_bytes())?).unwrap();
    Some(json!({ "$": format!("{iv}{}", text.trim()) }).to_string())
}

/// What OpenSSL reads in a credentials file.
fn opened_by_openssl(secret: &str, file: &str) -> Option<Value> {
    let file: Value = serde_json::from_str(file).unwrap();
    let (iv, text) = file["$"].as_str().unwrap().split_at(32);
    let key = sha256(secret)?;
    let arguments = ["enc", "-d", "-aes-256-ctr", "-K", &key, "-iv", iv, "-base64", "-A"];
    Some(serde_json::from_slice(&piped("openssl", &arguments, text.as_bytes())?).unwrap())
}

/// What Node.js reads in a credentials file.
fn opened_by_node(secret: &str, file: &str) -> Option<Value> {
    let script = r#"
        const crypto = require("crypto"), fs = require("fs");
        const sealed = JSON.parse(fs.readFileSync(0, "utf8"))["$"];
        const key = crypto.createHash("sha256").update(process.argv[1]).digest();
        const iv = Buffer.from(sealed.slice(0, 32), "hex");
        const decipher = crypto.createDecipheriv("aes-256-ctr", key, iv);
        process.stdout.write(decipher.update(sealed.slice(32), "base64", "utf8") + decipher.final("utf8"));
    "#;
    Some(serde_json::from_slice(&piped("node", &["-e", script, secret], file.as_bytes())?).unwrap())
}

// ---- running

#[test]
fn a_node_has_the_credentials_that_were_encrypted_elsewhere() {
    let own = json!({"user": "ali", "password": PASSWORD});
    let Some(file) = sealed(SECRET, &json!({"show": own, "gone": {"x": "y"}})) else { return };
    let host = host_with(file.as_str()).start();
    assert_eq!(shown(&mut host.io()).0, own);
    drop(host);

    // The same with the secret in a variable, or in Node-RED's own file.
    let without = || Host::builder().plugin("bad-node").flow(&flow()).file("flows_cred.json", file.as_str());
    let made = json!({"instanceId": "x", "_credentialSecret": SECRET}).to_string();
    for builder in [
        without().variable("NODE_RED_CREDENTIAL_SECRET", SECRET),
        without().variable("FLOWBAY_CREDENTIAL_SECRET", SECRET).variable("NODE_RED_CREDENTIAL_SECRET", "no"),
        without().file(".config.runtime.json", made),
        without().file("flows_cred.json", json!({"show": own}).to_string()),
    ] {
        assert_eq!(shown(&mut builder.start().io()).0, own);
    }
}

#[test]
fn variables_of_type_credential_have_their_values_and_the_secret_is_none() {
    let flow = Flow::new()
        .tab("keys", json!({"env": [{"name": "KEY", "type": "cred", "value": ""}]}))
        .set("key", "own", "key", "KEY", "env")
        .set("own", "out", "secret", "NODE_RED_CREDENTIAL_SECRET", "env")
        .io("key");
    let host = Host::builder()
        .flow(&flow)
        .variable("NODE_RED_CREDENTIAL_SECRET", SECRET)
        .file("flows_cred.json", json!({"keys": {"KEY": PASSWORD}}).to_string())
        .start();
    let mut client = host.io();
    client.send_json(&json!({}));
    let msg = client.recv_json();
    assert_eq!((&msg["key"], &msg["secret"]), (&json!(PASSWORD), &json!("")), "{msg}");
}

#[test]
fn the_flows_start_without_credentials_when_these_cannot_be_read_and_the_file_stays() {
    for (file, says) in [
        (
            r#"{"$": "00112233445566778899aabbccddeeffAAAA"}"#,
            "cannot be decrypted with the secret from secret",
        ),
        (r#"{"show": {"password": "sesame-opens"#, "not a credentials file"),
    ] {
        let host = host_with(file).start();
        host.wait_log(&format!("ERROR*the flows start without credentials: flows_cred.json: *{says}"));
        assert_eq!(shown(&mut host.io()).0, json!({}));
        let path = host.folder().join("flows_cred.json");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), file);
        let folder = host.folder().to_owned();
        let log = host.log();
        assert!(!log.contains("sesame"), "{log}");
        // Nor does the command write over it.
        let refused = credentials(&folder, "set flows.json show password", PASSWORD);
        assert!(refused.code == Some(1) && refused.stderr.contains(says), "{refused:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), file);
    }
}

#[test]
fn a_secret_file_that_is_missing_stops_the_start_with_one_line() {
    let folder = folder();
    let finished = flowbay(
        folder.path(),
        &["run", "flows.json", "-p", "0", "--plugins", ".", "--credential-secret-file", "none"],
    );
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.starts_with("flowbay: none: No such file"), "{finished:?}");
}

#[test]
fn a_change_restarts_only_the_nodes_it_is_for() {
    let host = host_with(json!({"show": {"user": "ali"}}).to_string()).start();
    let mut client = host.io();
    assert_eq!(shown(&mut client), (json!({"user": "ali"}), 1));
    done(host.folder(), "set flows.json show password", PASSWORD);
    host.wait_log("flows_cred.json has changed");
    // A message to a node that is just being restarted would vanish.
    host.eventually("the second start", || (host.count_log("started flows") == 2).then_some(()));
    // On the same connection, through a counter that goes on.
    assert_eq!(shown(&mut client), (json!({"user": "ali", "password": PASSWORD}), 2));
    // What cannot be read changes nothing.
    std::fs::write(host.folder().join("flows_cred.json"), "{").unwrap();
    host.wait_log("the credentials stay as they are: flows_cred.json");
    assert_eq!(shown(&mut client), (json!({"user": "ali", "password": PASSWORD}), 3));
}

#[test]
fn what_the_flow_file_carries_wins_and_stays_out_of_other_hands() {
    let flow = Flow::new()
        .node(
            "show",
            "shows-credentials",
            "out",
            json!({"credentials": {"user": "inline", "password": "__PWRD__", "other": PASSWORD}}),
        )
        .io("show");
    let stored = json!({"show": {"user": "stored", "password": PASSWORD, "stray": "x"}});
    let host = host_with(stored.to_string()).flow(&flow).start();
    host.wait_log("WARN*shows-credentials show: *stray, other; the node does not get them");
    assert_eq!(shown_alone(&mut host.io()), json!({"user": "inline", "password": PASSWORD}));
    let file = std::fs::read_to_string(host.folder().join("flows.json")).unwrap();
    assert_eq!(file, flow.to_json(), "the host writes no flow file");
    assert!(!host.log().contains(PASSWORD), "{}", host.log());
}

fn shown_alone(client: &mut Client) -> Value {
    client.send_json(&json!({}));
    client.recv_json()["payload"].take()
}

// ---- the command

#[test]
fn what_is_set_can_be_read_by_openssl_and_node_and_other_entries_stay() {
    let folder = folder();
    let path = folder.path().join("flows_cred.json");
    std::fs::write(&path, r#"{"gone": {"token": "t"}, "odd": 5}"#).unwrap();
    assert_eq!(done(folder.path(), "set flows.json show user", "ali\n"), "user of show is set");
    let lines = format!("{PASSWORD} ünicode\nsecond line\r\n");
    done(folder.path(), "set flows.json show password", &lines);
    let file = std::fs::read_to_string(&path).unwrap();
    let expected = json!({
        "gone": {"token": "t"},
        "odd": 5,
        "show": {"user": "ali", "password": format!("{PASSWORD} ünicode\nsecond line")},
    });
    for opened in [opened_by_openssl(SECRET, &file), opened_by_node(SECRET, &file)] {
        assert!(opened.is_none_or(|opened| opened == expected), "{file}");
    }
}

#[test]
fn list_names_nodes_and_fields_and_remove_takes_them_away() {
    let folder = folder();
    let path = folder.path().join("flows_cred.json");
    let start = json!({"gone": {"token": PASSWORD}, "show": {"user": PASSWORD, "password": PASSWORD}});
    std::fs::write(&path, start.to_string()).unwrap();
    assert_eq!(done(folder.path(), "list flows.json", ""), "gone: token\nshow: user, password");
    done(folder.path(), "remove flows.json gone", "");
    done(folder.path(), "remove flows.json show user", "");
    assert_eq!(done(folder.path(), "list flows.json", ""), "show: password");
    done(folder.path(), "remove flows.json show password", "");
    assert_eq!(done(folder.path(), "list flows.json", ""), "");
    let nothing = credentials(folder.path(), "remove flows.json show password", "");
    assert!(nothing.stderr.contains("flows_cred.json: there are no such credentials of show"), "{nothing:?}");
}

#[test]
fn what_cannot_be_set_is_one_clear_line_and_nothing_is_written() {
    let folder = folder();
    for (arguments, input, says) in [
        ("set flows.json nobody user", "x", "flows.json: there is no node with the id nobody"),
        ("set none.json show user", "x", "none.json: No such file"),
        ("set flows.json show user", "\n", "the value is blank"),
        ("set flows.json show user", &"x".repeat(2 << 20), "more than 1048576 bytes"),
    ] {
        let finished = credentials(folder.path(), arguments, input);
        assert_eq!(finished.code, Some(1), "{arguments}: {finished:?}");
        assert!(finished.stderr.contains(says) && finished.stderr.lines().count() == 1, "{finished:?}");
    }
    let finished = flowbay_given(folder.path(), &["credentials", "set", "flows.json", "show", "user"], "x");
    assert!(finished.stderr.contains("--credential-secret-file"), "{finished:?}");
    assert!(!folder.path().join("flows_cred.json").exists());
}

#[test]
fn changes_at_the_same_time_are_all_kept() {
    let folder = folder();
    std::thread::scope(|threads| {
        for number in 0..8 {
            let folder = folder.path();
            threads.spawn(move || done(folder, &format!("set flows.json show field{number}"), "x"));
        }
    });
    let listed = done(folder.path(), "list flows.json", "");
    for number in 0..8 {
        assert!(listed.contains(&format!("field{number}")), "{listed}");
    }
}

#[test]
fn no_output_has_a_secret_in_it() {
    let carried = json!({"credentials": {"user": "ali-baba", "password": PASSWORD}});
    let env =
        json!({"env": [{"name": "KEY", "type": "cred"}, {"name": "COPY", "type": "env", "value": "${KEY}"}]});
    let flow = Flow::new()
        .tab("keys", env)
        .node("quiet", "shows-credentials", "fail", carried)
        .node("fail", "fails-on-input", "", json!({"text": "no"}))
        .node("twice", "shows-credentials", "", json!({"type": "fails-on-input", "name": "${KEY}-not"}))
        .node("press", "inject", "quiet", json!({"props": []}));
    let stored = json!({"keys": {"KEY": PASSWORD}, "twice": {"password": PASSWORD, "stray": PASSWORD}});
    let host = Host::builder()
        .plugin("bad-node")
        .flow(&flow)
        .file("secret", SECRET)
        .file("flows_cred.json", stored.to_string())
        .setting("credential_secret_file", "secret")
        .variable("RUST_LOG", "trace")
        .start();
    host.inject("press");
    host.wait_log("fails-on-input*no");
    let mut all = vec![host.log()];
    for path in ["/plugins", "/runtime", "/metrics", "/healthz"] {
        let reply = host.get(path);
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        all.push(reply.body);
    }
    done(host.folder(), "set flows.json twice user", PASSWORD);
    host.wait_log("flows_cred.json has changed");
    std::fs::write(host.folder().join("flows_cred.json"), format!("{{\"twice\": \"{PASSWORD}\"")).unwrap();
    host.wait_log("the credentials stay as they are");
    std::fs::write(host.folder().join("flows_cred.json"), stored.to_string()).unwrap();
    let plugins = host.plugin_folder().display().to_string();
    let check = flowbay(host.folder(), &["check", "flows.json", "--plugins", &plugins]);
    all.extend([check.stdout, check.stderr, done(host.folder(), "list flows.json", "")]);
    let end = host.stop();
    all.extend([end.stdout, end.stderr]);
    for text in all {
        for secret in [SECRET, PASSWORD, "ali-baba"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
