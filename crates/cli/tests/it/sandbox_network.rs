//! The network of `sandbox run --policy`: decided, written down, told; without a policy none.

use crate::network::{PRELUDE, SECRET, Upstream, set_secret};
use crate::support::{Said, World, until};
use serde_json::Value;

/// A project whose policy file is a manifest, and a program for the sandbox.
fn world(upstream: &Upstream, permissions: &str, program: &str) -> World {
    let world = World::new();
    let more = format!(
        "[permissions]\n{permissions}\n[network]\n\
         resolve = {{ \"api.example.test\" = \"127.0.0.1:{port}\", \
         \"wiki.example.test\" = \"127.0.0.1:{port}\" }}\n[secrets]\nTOKEN = \"api\"\n",
        port = upstream.port
    );
    world.agent(&more, "");
    world.write("w/try.py", &format!("{PRELUDE}{program}"));
    world
}

fn inside(world: &World, policy: &[&str]) -> Said {
    let (before, after) = (["sandbox", "run", "--workspace", "w"], ["--", "python3", "try.py"]);
    world.run(&[&before, policy, &after].concat())
}

/// The trail's lines of one kind.
fn trail(world: &World, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(world.home().join("sandbox-network.jsonl"));
    let text = text.unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["record"]["kind"] == kind).collect()
}

const PROGRAM: &str = "go('GET', 'http://api.example.test/v1/a')\n\
    go('GET', 'http://api.example.test/v2/a')\n\
    go('POST', 'http://api.example.test/v1/a', b'x')\n\
    go('GET', 'http://other.example.test/')\n\
    print(os.environ.get('TOKEN', '').startswith('bpsecret-api-'))\n";

#[test]
fn without_a_policy_nothing_reaches_outward() {
    let upstream = Upstream::start();
    let world = world(&upstream, "allow = [\"GET api.example.test/*\"]", PROGRAM);
    let said = inside(&world, &[]).exits(0);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines[..4].iter().all(|line| line.starts_with("nothing: ")), "{lines:?}");
    assert_eq!((lines[4], upstream.seen().len()), ("False", 0));
    assert!(!world.home().exists());
}

#[test]
fn a_manifest_decides_request_by_request_and_puts_secrets_in() {
    let upstream = Upstream::start();
    let permits = "allow = [\"shell\", \"GET api.example.test/v1/*\", \
        \"GET wiki.example.test/*\", \"secret:api@api.example.test\"]";
    let program = format!("{PROGRAM}go('GET', 'http://wiki.example.test/page')\n");
    let world = world(&upstream, permits, &program);
    set_secret(&world);
    let said = inside(&world, &["--policy", "bedplate.toml"]).exits(0);
    let lines: Vec<&str> = said.stdout.lines().collect();
    let answer = "200 you sent GET /v1/a HTTP/1.1 with Bearer [masked:api] and ";
    assert_eq!(lines[0], answer, "{lines:?} {}", said.stderr);
    assert!(lines[1].contains("BP-POLICY-020") && lines[2].contains("BP-POLICY-020"), "{lines:?}");
    assert!(lines[3].starts_with("nothing: "), "{lines:?}");
    assert_eq!(lines[4], "True");
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[0].authorization, format!("Bearer {SECRET}"));
    assert!(seen[1].authorization.starts_with("Bearer bpsecret-api-"), "{seen:?}");
    // Each denial is told once, with the rule that would permit it.
    assert_eq!(said.stderr.matches("\ndenied ").count() + 1, 3, "{}", said.stderr);
    assert!(said.stderr.contains("next: put into the policy: permit("), "{}", said.stderr);
    let decided = trail(&world, "egress_decided");
    let verdicts: Vec<&str> =
        decided.iter().filter_map(|line| line["record"]["verdict"].as_str()).collect();
    assert_eq!(verdicts, ["permit", "deny", "deny", "deny", "permit"]);
    assert_eq!(
        (&decided[0]["secrets"][0], &decided[0]["principal"]),
        (&"api".into(), &"ada".into())
    );
    assert_eq!(trail(&world, "egress_ended").len(), 2);
    assert!(!said.stderr.contains(SECRET) && !said.stdout.contains(SECRET));
}

#[test]
fn cedar_permits_whoever_types() {
    let upstream = Upstream::start();
    let world = world(&upstream, "", "go('GET', 'http://10.0.0.1/')\n");
    let rule = |name: &str| {
        format!(
            "permit(principal == User::\"{name}\", action == Action::\"http_request\", \
             resource == Host::\"10.0.0.1\");\n"
        )
    };
    world.write("p.cedar", &rule("eve"));
    let said = inside(&world, &["--policy", "p.cedar"]).exits(0);
    assert!(said.stdout.contains("BP-POLICY-020"), "{said:?}");
    // Permitted by policy, and then nobody is taken to a private address.
    world.write("p.cedar", &rule("ada"));
    let said = inside(&world, &["--policy", "p.cedar"]).exits(0);
    assert!(said.stdout.contains("BP-BOUNDARY-008"), "{said:?}");
    assert_eq!(trail(&world, "egress_decided")[1]["record"]["verdict"], "permit");
}

#[test]
fn what_a_person_would_have_to_approve_is_denied_and_a_twin_too() {
    let upstream = Upstream::start();
    let post = "go('POST', 'http://api.example.test/v1/a', b'x')\n";
    let get = "go('GET', 'http://wiki.example.test/')\n";
    let permits =
        "allow = [\"shell\", \"POST api.example.test/*\"]\nask = [\"GET wiki.example.test/*\"]";
    let world = world(&upstream, permits, &format!("{get}{post}{post}"));
    let said = inside(&world, &["--policy", "bedplate.toml"]).exits(0);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines[0].starts_with("403 ") && lines[0].contains("BP-RUN-018"), "{lines:?}");
    assert!(lines[1].starts_with("200 "), "{lines:?}");
    assert!(lines[2].starts_with("403 ") && lines[2].contains("BP-RUN-018"), "{lines:?}");
    assert_eq!(upstream.seen().len(), 1);
    assert!(said.stderr.contains("it wants a person"), "{}", said.stderr);
}

#[test]
fn with_no_place_for_its_trail_nothing_starts() {
    let upstream = Upstream::start();
    let world = world(&upstream, "allow = [\"shell\"]", PROGRAM);
    std::fs::create_dir_all(world.home().join("sandbox-network.jsonl")).expect("made");
    inside(&world, &["--policy", "bedplate.toml"]).fails(125, "BP-RUN-015");
    std::fs::remove_dir(world.home().join("sandbox-network.jsonl")).expect("removed");
    inside(&world, &["--policy", "bedplate.toml"]).exits(0);
    until("nothing is left running", || world.owner().is_none());
}
