//! The bypass corpus from inside a real sandbox: what a program may try, tried through the whole of
//! Bedplate, with a world outside that notes every packet.
//!
//! Three parts written apart: the cases ([`corpus`], the boundary's own, and [`extra`], which needs
//! a sandbox), the act (`inside.py`, in the sandbox and beside it for controls), the witness
//! (`outside.py`, in a network namespace of its own: servers on every address, an authoritative
//! name server, a capture of every packet). This file only judges.
//!
//! A case holds when it ends as it must, nothing was seen outside meanwhile, and its control, the
//! permitted twin or the same act without a sandbox, gets through.
//! `cargo test -p bedplate --test bypass -- --nocapture` prints the table.

#![allow(clippy::print_stdout, reason = "the table is for people")]

#[path = "../../../boundary/tests/corpus/mod.rs"]
mod corpus;
mod extra;
mod outside;
mod peers;

use corpus::{Act, Case, End};
use outside::{Opened, Seen, World};
use serde_json::{Value, json};

/// Cases that must have run with a control that got through.
const CASES_MIN: usize = 200;
/// Cases that are compared with peers, and count here.
const COMMON_MIN: usize = 120;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn act(act: &Act) -> Value {
    match act {
        Act::Http { host, bytes } => json!({ "do": "http", "host": host, "bytes": hex(bytes) }),
        Act::HttpAt { ip, port, bytes } => {
            json!({ "do": "http_at", "ip": ip, "port": port, "bytes": hex(bytes) })
        }
        Act::Https { host, sni, bytes } => {
            json!({ "do": "https", "host": host, "sni": sni, "bytes": hex(bytes) })
        }
        Act::Http2 { host, uri, method, headers } => json!({
            "do": "http2", "host": host, "uri": uri, "method": method, "headers": headers,
        }),
        Act::Dns { labels, kind } => {
            let labels: Vec<String> = labels.iter().map(|label| hex(label)).collect();
            json!({ "do": "dns", "labels": labels, "kind": kind })
        }
    }
}

/// How a case must end.
fn end(end: End) -> Value {
    match end {
        End::Status(status) => json!(status),
        End::Unreachable => json!("unreachable"),
        End::Closed => json!("closed"),
        End::Refused => json!("refused"),
        End::Empty => json!("empty"),
    }
}

/// The boundary's corpus as cases for a sandbox. A control that posts gets a target of its own: the
/// same bytes are never sent twice unasked.
fn shared() -> Vec<Value> {
    let of = |(number, mut case): (usize, Case)| {
        if let Act::Http { bytes, .. } = &mut case.control
            && let Some(rest) = bytes.strip_prefix(b"POST / ")
        {
            *bytes = [format!("POST /?case={number} ").as_bytes(), rest].concat();
        }
        json!({
            "name": case.name, "attack": act(&case.attack), "end": end(case.end),
            "control": act(&case.control), "beside": false,
        })
    };
    corpus::all().into_iter().enumerate().map(of).collect()
}

fn cases() -> Vec<Value> {
    shared().into_iter().chain(extra::cases()).collect()
}

/// Whether an act ended as it must.
fn ended(found: &Value, end: &Value) -> bool {
    let closed = found.get("closed").is_some();
    let dns = |code: &[u64]| code.iter().any(|code| found["dns"] == json!([code, 0]));
    match end.as_str() {
        None => found["status"] == *end,
        Some("unreachable") => found["code"] == "BP-BOUNDARY-008",
        Some("closed") => closed,
        Some("refused") => dns(&[1, 5]),
        Some("empty") => dns(&[0]),
        Some("nothing") => closed || found["dns"][1] == 0,
        // Anything but getting through, where kernels and libraries differ in how they refuse.
        Some("held") => closed || found["status"].as_u64().is_some_and(|status| status >= 400),
        Some(other) => panic!("no end is called {other}"),
    }
}

/// What was seen outside that may not be. A host that is permitted may be looked up before it turns
/// out to lead where nobody is taken, and greeted before it turns out to be another.
fn leaked(before: &Seen, after: &Seen, end: &Value) -> bool {
    let requests = after.requests != before.requests;
    let packets = after.other != before.other;
    let connections = after.syn != before.syn;
    let names = after.names.len() != before.names.len();
    match end {
        end if *end == "unreachable" => requests || packets || connections,
        end if *end == 502 => requests || packets,
        _ => requests || packets || connections || names,
    }
}

/// Whether a control got through, and was seen to.
fn through(found: &Value, before: &Seen, after: &Seen) -> bool {
    found["status"] == 200 && after.requests > before.requests
        || found["dns"][0] == 0 && found["dns"][1].as_u64() > Some(0)
        || found.get("reached").is_some()
}

/// One case's verdict: what is wrong, if anything, and whether its control got through.
fn judge(case: &Value, found: &outside::Found) -> (Option<String>, bool) {
    let name = case["name"].as_str().expect("a name");
    let text = found.attack.to_string() + &found.control.to_string();
    if text.contains(outside::SECRET) {
        return (Some(format!("{name}: the secret came back")), false);
    }
    let controlled = through(&found.control, &found.between, &found.after);
    let counted = case["requests"].as_u64();
    let own = case["own"] == true;
    let leaked = match counted {
        Some(count) => found.between.requests != found.before.requests + count,
        None => !own && leaked(&found.before, &found.between, &case["end"]),
    };
    let wrong = if !ended(&found.attack, &case["end"]) {
        Some(format!("{name}: ended {}, not {}", found.attack, case["end"]))
    } else if leaked {
        Some(format!("{name}: seen outside: {}", found.before.until(&found.between)))
    } else if !controlled && case["optional"].is_null() {
        Some(format!("{name}: its control ended {}", found.control))
    } else {
        None
    };
    (wrong, controlled)
}

/// Everything that is wrong with a sandbox under a policy, and how many controls got through.
fn drive(opened: &Opened<'_>) -> (Vec<String>, usize) {
    let cases = cases();
    let mut world = World::start(opened, &cases);
    let (mut wrong, mut controlled) = (Vec::new(), 0);
    for case in &cases {
        let Some(found) = world.next() else {
            wrong.push(format!("{}: the world ended before it", case["name"]));
            return (wrong, controlled);
        };
        assert_eq!(case["name"], found.name.as_str());
        let (problem, with_control) = judge(case, &found);
        controlled += usize::from(with_control);
        let word = if problem.is_some() { "THROUGH" } else { "held" };
        println!(
            "{word:8} {:50} {:>6} ms  {:.60}",
            found.name,
            found.took_ms,
            found.attack.to_string()
        );
        wrong.extend(problem);
    }
    let last = world.end();
    // The one alias is followed for a permitted name, which its own server sent there.
    let known = |name: &str| name.ends_with("ok.test") || name == "internal.evil.test";
    let strange = last.names.iter().filter(|name| !known(name));
    wrong.extend(strange.map(|name| format!("the name server was asked for {name}")));
    for mark in [outside::MARK, "/denied"] {
        if last.arrived(mark) {
            wrong.push(format!("{mark} reached a server outside"));
        }
    }
    let (home, abroad) = last.secrets();
    if !home {
        wrong.push("the secret did not reach the host it is for".to_owned());
    }
    wrong.extend(abroad.then(|| "the secret reached another host".to_owned()));
    (wrong, controlled)
}

#[test]
fn nothing_gets_past_the_boundary() {
    let (wrong, controlled) = drive(&Opened::default());
    println!("{} cases, {controlled} with a control that gets through here", cases().len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(controlled >= CASES_MIN, "{controlled}");
}

/// The same corpus under a policy that permits every request: what was to be denied arrives outside,
/// and the witness must say so.
#[test]
fn the_witness_sees_what_an_open_policy_lets_through() {
    let policy = "permit(principal, action == Action::\"http_request\", resource);
        permit(principal, action == Action::\"use_secret\", resource);
        permit(principal, action == Action::\"run_command\", resource);\n";
    let (wrong, _) = drive(&Opened { policy, ..Opened::default() });
    for what in [
        "N1 public address",
        "D1 data in a denied label",
        "H15 plain",
        "H21 redirect to a public address",
        "the name server was asked for",
        "/denied reached",
        "the secret reached another host",
    ] {
        let noticed = wrong.iter().any(|line| line.starts_with(what));
        assert!(noticed, "{what} was not noticed:\n{}", wrong.join("\n"));
    }
}

/// What a filter of host names speaks to, here and in what others use. Peers are not judged.
#[test]
fn side_by_side_with_peers() {
    let cases: Vec<Value> = cases().into_iter().filter(peers::is_common).collect();
    let (all, lines) = peers::side_by_side(&cases);
    println!("{}", lines.join("\n"));
    let ours = &all[0].1;
    assert_eq!(ours.through, Vec::<String>::new());
    assert!(ours.counted() >= COMMON_MIN, "{}", ours.counted());
}

/// Leaves parts of the containment out: the corpus must turn red.
#[cfg(feature = "weakened")]
#[test]
fn a_broken_build_is_noticed() {
    for part in ["Seccomp", "Root", "Descriptors"] {
        let weaken = format!("{part},SelfProbe");
        let (wrong, _) = drive(&Opened { weaken: Some(&weaken), ..Opened::default() });
        println!("without {part}: {}", wrong.join("\n"));
        assert!(!wrong.is_empty(), "without {part}, nothing was noticed");
    }
}

/// With a part of the containment left out and the self-probe in its place, nothing starts.
#[cfg(feature = "weakened")]
#[test]
fn a_broken_build_does_not_start() {
    let home = tempfile::tempdir().expect("a directory");
    for part in ["Seccomp", "Network", "Landlock", "Descriptors"] {
        let said = std::process::Command::new(outside::bedplate())
            .args(["sandbox", "run", "--", "echo", "started"])
            .env("BEDPLATE_HOME", home.path().join("h"))
            .env("BEDPLATE_WEAKEN", part)
            .output()
            .expect("it runs");
        let told = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(125), "without {part}: {told}");
        assert!(told.contains("error BP-SANDBOX-028"), "without {part}: {told}");
        assert!(said.stdout.is_empty(), "without {part}, something started");
    }
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let cases = cases();
    let names: std::collections::BTreeSet<_> =
        cases.iter().map(|case| case["name"].to_string()).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() >= CASES_MIN + 60, "{}", cases.len());
}
