//! The crash harness: kill the owner just before and just after every record, resume, compare.
//!
//! Needs a binary with the feature `failpoints`. The judge looks only at what is outside: what the
//! command prints as JSON, the workspace's final files, and what the tools themselves counted.

mod common;

use common::{Home, Said, copy_tree, example, json, leftovers};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// More appends than any scenario makes.
const BOUNDARIES_MAX: u32 = 400;
/// Most times a run is taken up again before we call it stuck.
const RESUMES_MAX: usize = 12;

/// What a run comes to, as seen from outside.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: String,
    output: String,
    artifacts: BTreeMap<String, String>,
    changes: String,
    /// Calls of each outside tool's effect, by the tool's own count.
    effects: BTreeMap<String, usize>,
}

struct Scenario {
    name: &'static str,
    project: fn(&Path) -> PathBuf,
    /// Reads the tools' own counters.
    effects: fn(&Path) -> BTreeMap<String, usize>,
}

/// Which processes die.
#[derive(Clone, Copy, PartialEq)]
enum Death {
    /// The owner alone, by its own hand at the boundary.
    Owner,
    /// And then everything it started, with the command.
    Tree,
}

fn run_once(scenario: &Scenario, crash: Option<&str>, death: Death) -> (Outcome, bool) {
    let home = Home::new();
    let project = (scenario.project)(home.scratch());
    let mut crashed = false;
    let mut last = match crash {
        None => home.bedplate(&["run", text(&project), "--json"]).run(),
        Some(point) => {
            let died = home
                .bedplate(&["run", text(&project), "--json"])
                .env("BEDPLATE_CRASH", point)
                .run();
            crashed = owner_died(&died);
            if crashed && death == Death::Tree {
                home.kill_everything();
            }
            died
        }
    };
    let mut runs = home.runs();
    if crashed && runs.is_empty() {
        // It died before the run existed: nothing to resume, nothing done.
        last = home.bedplate(&["run", text(&project), "--json"]).run();
        runs = home.runs();
    }
    for _ in 0..RESUMES_MAX {
        if ended(&runs) {
            break;
        }
        // The owner that is to die may live on while the run waits, and die of the answer.
        crashed |= answer_questions(&home, scenario, &project);
        last = home.bedplate(&["resume", "last", "--json"]).run();
        crashed |= owner_died(&last);
        runs = home.runs();
    }
    let outcome = judge(&home, scenario, &project, &last.stderr);
    home.wait_for_owner_to_leave();
    let left = leftovers(home.path());
    assert!(left.is_empty(), "{}: {crash:?} left {left:?}", scenario.name);
    (outcome, crashed)
}

fn owner_died(said: &Said) -> bool {
    ["BP-OWNER-002", "BP-OWNER-003"].iter().any(|code| said.stderr.contains(code))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a test's path is UTF-8")
}

fn ended(runs: &[Value]) -> bool {
    let status = runs.first().and_then(|run| run["status"].as_str());
    matches!(status, Some("done" | "failed" | "cancelled"))
}

/// Approves what is asked; resolves what is in doubt by what the tool itself counted. Says whether
/// the owner died of it.
fn answer_questions(home: &Home, scenario: &Scenario, project: &Path) -> bool {
    let mut died = false;
    let open = json(&home.bedplate(&["approvals", "--json"]).run().stdout);
    for question in open["approvals"].as_array().expect("a list") {
        let id = question["id"].as_str().expect("an id");
        if question["kind"] == "ask" {
            died |= owner_died(&home.bedplate(&["approve", id, "--no-resume"]).run());
            continue;
        }
        let key = question["resource"].as_str().unwrap_or_default().to_owned();
        let happened = (scenario.effects)(project).contains_key(&key);
        let how = if happened { "--happened" } else { "--not-happened" };
        died |= owner_died(&home.bedplate(&["resolve", id, how, "--no-resume"]).run());
    }
    died
}

fn judge(home: &Home, scenario: &Scenario, project: &Path, stderr: &str) -> Outcome {
    let shown = home.bedplate(&["show", "last", "--json"]).run();
    let shown: Value = json(&shown.stdout);
    let status = shown["status"].as_str().unwrap_or("none").to_owned();
    assert_ne!(status, "none", "{stderr}");
    let artifacts = shown["artifacts"].as_array().cloned().unwrap_or_default();
    let artifacts = artifacts
        .iter()
        .map(|a| (a["path"].as_str().unwrap_or_default(), a["sha256"].as_str().unwrap_or_default()))
        .map(|(path, sha)| (path.to_owned(), sha.to_owned()))
        .collect();
    let verified = home.bedplate(&["verify", "last"]).run();
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    Outcome {
        status,
        output: shown["output"].as_str().unwrap_or_default().to_owned(),
        artifacts,
        changes: home.bedplate(&["diff", "last"]).run().stdout,
        effects: (scenario.effects)(project),
    }
}

/// Kills at every `stride`th boundary until the run passes without dying, and compares each time.
/// Both sides of the appends at once: the longest scenario is the last to end.
fn enumerate_by(scenario: &Scenario, death: Death, stride: usize) -> u32 {
    let (calm, _) = run_once(scenario, None, death);
    assert_eq!(calm.status, "done", "{}: {calm:?}", scenario.name);
    let one_side = |side: &str| {
        let mut boundaries = 0;
        for number in (1..=BOUNDARIES_MAX).step_by(stride) {
            let (outcome, crashed) = run_once(scenario, Some(&format!("{side}:{number}")), death);
            assert_eq!(outcome, calm, "{}: killed {side} append {number}", scenario.name);
            if !crashed {
                break;
            }
            boundaries += 1;
        }
        boundaries
    };
    std::thread::scope(|scope| {
        let after = scope.spawn(|| one_side("after"));
        one_side("before") + after.join().expect("the other side failed; it has said why")
    })
}

/// Every boundary as root; every fifth as an ordinary user, for whom only the sandbox differs.
fn enumerate(scenario: &Scenario, death: Death) -> u32 {
    const STRIDE_AS_USER: u32 = 5;
    if rustix::process::geteuid().is_root() {
        return enumerate_by(scenario, death, 1);
    }
    enumerate_by(scenario, death, STRIDE_AS_USER as usize) * STRIDE_AS_USER
}

fn no_effects(_: &Path) -> BTreeMap<String, usize> {
    BTreeMap::new()
}

/// The mixed run's tools append one line `TOOL KEY` a call to `effects.log` beside the manifest.
fn logged_effects(project: &Path) -> BTreeMap<String, usize> {
    let log = std::fs::read_to_string(project.join("effects.log")).unwrap_or_default();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for tool in log.lines().filter_map(|line| line.split(' ').next()) {
        *counts.entry(tool.to_owned()).or_default() += 1;
    }
    // A read tool may be called again, and an idempotent one too: its effect is the set of keys.
    counts.remove("look");
    if let Some(put) = counts.get_mut("put") {
        let keys = log.lines().filter(|line| line.starts_with("put "));
        *put = keys.collect::<std::collections::BTreeSet<_>>().len();
    }
    counts
}

fn published(project: &Path) -> BTreeMap<String, usize> {
    let posts = std::fs::read_to_string(project.join("site/posts.jsonl")).unwrap_or_default();
    BTreeMap::from([("publish_report".to_owned(), posts.lines().count())])
}

fn mixed(scratch: &Path) -> PathBuf {
    let project = scratch.join("mixed");
    copy_tree(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/mixed"), &project);
    project
}

const MIXED: Scenario = Scenario { name: "mixed", project: mixed, effects: logged_effects };
const ANALYST: Scenario =
    Scenario { name: "analyst", project: |at| example(at, "analyst"), effects: no_effects };
const ENGINEER: Scenario =
    Scenario { name: "engineer", project: |at| example(at, "engineer"), effects: no_effects };
const PUBLISH: Scenario =
    Scenario { name: "publish", project: |at| example(at, "publish"), effects: published };

#[test]
fn every_boundary_of_a_mixed_run() {
    let boundaries = enumerate(&MIXED, Death::Owner);
    assert!(boundaries >= 60, "only {boundaries} boundaries were tried");
}

#[test]
fn every_boundary_of_a_mixed_run_with_the_whole_tree() {
    let boundaries = enumerate(&MIXED, Death::Tree);
    assert!(boundaries >= 60, "only {boundaries} boundaries were tried");
}

#[test]
fn every_boundary_of_the_analyst() {
    assert!(enumerate(&ANALYST, Death::Owner) >= 100);
}

#[test]
fn every_boundary_of_the_engineer() {
    assert!(enumerate(&ENGINEER, Death::Owner) >= 60);
}

#[test]
fn every_boundary_of_publishing() {
    assert!(enumerate(&PUBLISH, Death::Tree) >= 20);
}
