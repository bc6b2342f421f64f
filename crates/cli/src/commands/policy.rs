//! `policy`: what an agent may do, and how to change it.

mod edit;

use super::files::{agreed, part};
use crate::arguments::PolicyCommand;
use crate::asked::Context;
use crate::error::{CliError, Failed, Result, exit};
use crate::render;
use crate::session::{Session, block_on, existing_dir, login, quoted};
use crate::summary::verdict_word;
use crate::terminal::{Paint, Terminal, safe, safe_block};
use edit::{Addition, List};
use kernel::State;
use policy::{DecisionInput, PolicySet, Principal, Suggestion, narrowest};
use runtime::config::{self, Project};
use runtime::policy_sources;
use runtime::protocol::Request;
use serde_json::json;
use std::path::{Path, PathBuf};
use store::Read as _;
use types::{ActionRequest, BRANCH_MAIN, Body, Record, RunId, Verdict};

/// Does a policy command.
pub(crate) fn perform(session: &Session, command: PolicyCommand) -> Result<u8> {
    match command {
        PolicyCommand::Show { target, cedar } => show(session, target.as_deref(), cedar),
        PolicyCommand::Check { dir } => check(session, dir.as_deref()),
        PolicyCommand::Allow { run, yes } => open_up(session, &run, List::Allow, yes),
        PolicyCommand::Ask { run, yes } => open_up(session, &run, List::Ask, yes),
        PolicyCommand::Deny { entry, dir, yes } => deny(session, &entry, &dir, yes),
        PolicyCommand::Diff { old, new } => diff(session, &old, &new),
        PolicyCommand::Test { file, dir } => test(session, &file, &dir),
    }
}

fn set_of(project: &Project) -> Result<PolicySet> {
    Ok(policy_sources::compile(&project.manifest, project.cedar.as_deref(), &[])?)
}

fn load(dir: &Path) -> Result<(Project, PolicySet)> {
    let project = config::load(dir, None)?;
    let set = set_of(&project)?;
    Ok((project, set))
}

/// The policy of a run as it is now: its directory's when there is one, with what was added to it
/// alone.
fn set_of_run(records: &[Record]) -> Result<PolicySet> {
    let state = State::of(records);
    let mut manifest = state.manifest().clone();
    let mut cedar = None;
    if let Some(dir) = manifest_dir(records) {
        let project = config::load(&dir, None)?;
        manifest.permissions = project.manifest.permissions;
        cedar = project.cedar;
    }
    Ok(policy_sources::compile(&manifest, cedar.as_deref(), &state.allowed)?)
}

/// The directory of a run's manifest, while it is there.
fn manifest_dir(records: &[Record]) -> Option<PathBuf> {
    match records.first().map(|record| &record.body) {
        Some(Body::RunStarted { dir: Some(dir), .. }) => {
            Some(PathBuf::from(dir)).filter(|dir| dir.join(config::MANIFEST_FILE).exists())
        }
        _ => None,
    }
}

fn show(session: &Session, target: Option<&str>, cedar: bool) -> Result<u8> {
    let target = target.unwrap_or(".");
    let set = match existing_dir(Path::new(target)) {
        Some(dir) => load(&dir)?.1,
        None if target.contains('/') || target.starts_with('.') => {
            return Err(CliError::NoDirectory { target: target.to_owned() }.into());
        }
        None => set_of_run(&session.run(target)?.1)?,
    };
    if cedar && !session.json {
        Terminal::answer(safe_block(&set.cedar_source()).trim_end());
        return Ok(exit::DONE);
    }
    let rows = set.table();
    if session.json {
        let mut document = json!({ "policy_set": set.digest(), "rows": rows });
        if cedar {
            document["cedar"] = json!(set.cedar_source());
        }
        Terminal::answer_json(&document);
        return Ok(exit::DONE);
    }
    for row in rows {
        let paint = match row.verdict {
            Verdict::Permit => Paint::Green,
            Verdict::Ask => Paint::Yellow,
            Verdict::Deny => Paint::Red,
        };
        let word = session.terminal.paint(paint, &format!("{:<6}", verdict_word(row.verdict)));
        let when =
            if row.when.is_empty() { String::new() } else { format!("  when {}", safe(&row.when)) };
        let what = format!("{:<12} {}", row.action, safe(&row.resource));
        Terminal::answer(&format!("{word}  {what:<52}{when}  [{}]", safe(&row.source)));
    }
    session.terminal.progress("what no row permits is denied");
    Ok(exit::DONE)
}

fn check(session: &Session, dir: Option<&Path>) -> Result<u8> {
    let (project, set) = load(dir.unwrap_or(Path::new(".")))?;
    set.fs_rules().map_err(|error| part(&error))?;
    config::workspace(&project)?;
    crate::model_choice::check_scripts(&project.manifest, &project.dir)?;
    let rows = set.table().len();
    if session.json {
        Terminal::answer_json(&json!({ "ok": true, "policy_set": set.digest(), "rows": rows }));
    } else {
        let rows = render::count(rows as u64, "rule");
        Terminal::answer(&format!(
            "{}: {rows}, set {}",
            project.dir.display(),
            set.digest().short()
        ));
    }
    Ok(exit::DONE)
}

/// What a run was denied and no approval or later change permitted: every denial by policy.
fn denied(records: &[Record]) -> Vec<ActionRequest> {
    let state = State::of(records);
    let mut requests: Vec<ActionRequest> = Vec::new();
    let mut add = |request: &ActionRequest| {
        if !requests.contains(request) {
            requests.push(request.clone());
        }
    };
    for record in records {
        match &record.body {
            Body::DecisionMade { action: Some(id), verdict: Verdict::Deny, .. } => {
                let of = state.actions.get(id).into_iter().flat_map(|action| &action.requests);
                of.for_each(&mut add);
            }
            // What the privacy router turned down, no rule of policy opens.
            Body::EgressDecided { verdict: Verdict::Deny, request, policies, .. }
                if !crate::progress::by_privacy(policies) =>
            {
                add(request);
            }
            _ => {}
        }
    }
    requests
}

/// Of these, what policy denies now, and of that what a `forbid` denies.
fn split(set: &PolicySet, requests: Vec<ActionRequest>, agent: &str, team: &str) -> Split {
    let mut split = Split::default();
    for request in requests {
        let principal = Principal::agent(agent, team);
        let decision = set.decide(&DecisionInput::new(principal, request.clone()));
        match decision.because {
            policy::Because::NoRule => split.open.push(request),
            policy::Because::Permitted | policy::Because::Asked => {}
            policy::Because::Forbidden | policy::Because::Failed => {
                split.shut.push(format!("{}: {}", render::request(&request), decision.reason));
            }
        }
    }
    split
}

#[derive(Debug, Default)]
struct Split {
    /// No rule permits it.
    open: Vec<ActionRequest>,
    /// A rule forbids it: why, for people.
    shut: Vec<String>,
}

/// `policy allow` and `policy ask`.
fn open_up(session: &Session, run: &str, list: List, yes: bool) -> Result<u8> {
    let (run, records) = session.run(run)?;
    let state = State::of(&records);
    let agent = &state.manifest().agent;
    let requests = denied(&records);
    let any = !requests.is_empty();
    let split = split(&set_of_run(&records)?, requests, &agent.name, &agent.team);
    for shut in &split.shut {
        let word = session.terminal.paint(Paint::Red, "cannot be allowed by adding:");
        Terminal::say(&format!("{word} {}", safe(shut)));
    }
    if split.open.is_empty() {
        return nothing_to_open(&run, any, &split);
    }
    let suggestions = narrowest(&split.open);
    let additions: Vec<Addition> =
        suggestions.iter().map(|suggestion| Addition::of(suggestion, list)).collect();
    let dir = manifest_dir(&records);
    for (suggestion, addition) in suggestions.iter().zip(&additions) {
        explain(session, suggestion, addition, list);
    }
    if dir.is_none() {
        check_run_takes(list, &additions)?;
    }
    let place = dir.as_ref().map_or_else(|| format!("run {run}"), |dir| dir.display().to_string());
    let question =
        format!("write {} to {place}? [y/n]", render::count(additions.len() as u64, "rule"));
    let command = session.command(&format!("policy {} {run}", list.word()));
    if !agreed(session, yes, &question, command)? {
        Terminal::say("nothing was changed");
        return Ok(exit::FAILED);
    }
    match dir {
        Some(dir) => {
            for line in edit::write(&dir, list, &additions)? {
                session.terminal.progress(&safe(&line));
            }
            tell_live(session, &dir)?;
        }
        None => add_to_run(session, &run, &additions)?,
    }
    finish(session, &run, &state, &additions)
}

fn nothing_to_open(run: &RunId, any: bool, split: &Split) -> Result<u8> {
    let (reason, next) = if !any {
        (format!("run {run} was denied nothing"), format!("bedplate show {run}"))
    } else if split.shut.is_empty() {
        let next = format!("bedplate resume {run}, or bedplate send {run} TEXT");
        (format!("what run {run} was denied is permitted or asked by now"), next)
    } else {
        let next = "Change or remove the deny entry or forbid policy that is named.".to_owned();
        (format!("what run {run} was denied is forbidden, and no rule can open that"), next)
    };
    Err(CliError::CannotAllow { reason, next }.into())
}

fn explain(session: &Session, suggestion: &Suggestion, addition: &Addition, list: List) {
    let word = session.terminal.paint(Paint::Bold, list.word());
    match addition {
        Addition::Entry(entry) => Terminal::say(&format!("{word} \"{}\"", safe(entry))),
        Addition::Cedar(cedar) => Terminal::say(&format!("{word} by {}", safe(cedar))),
    }
    Terminal::say(&format!("  opens {}", safe(&suggestion.opens)));
}

/// `approve --rule`: shows the narrowest rules that permit what is asked, sees that they do, and
/// writes them. Whether it did.
pub(crate) fn approve_by_rule(
    session: &Session,
    records: &[Record],
    asked: &Context,
    yes: bool,
    id: &str,
) -> Result<bool> {
    let additions: Vec<Addition> =
        asked.opens.iter().map(|suggestion| Addition::of(suggestion, List::Allow)).collect();
    still_asks(records, asked, &additions)?;
    for (suggestion, addition) in asked.opens.iter().zip(&additions) {
        explain(session, suggestion, addition, List::Allow);
    }
    let dir = manifest_dir(records);
    let rules = render::count(additions.len() as u64, "rule");
    let place = dir.as_ref().map_or_else(|| "this run".to_owned(), |dir| dir.display().to_string());
    let command = session.command(&format!("approve {id} --rule"));
    if !agreed(session, yes, &format!("write {rules} to {place}? [y/n]"), command)? {
        Terminal::say("nothing was changed");
        return Ok(false);
    }
    match dir {
        Some(dir) => {
            for line in edit::write(&dir, List::Allow, &additions)? {
                session.terminal.progress(&safe(&line));
            }
            tell_live(session, &dir)?;
        }
        None => {
            check_run_takes(List::Allow, &additions)?;
            // The first records of a fork are another run's.
            let run = records.last().map(|record| record.stamp.run.clone());
            add_to_run(session, &run.expect("a run has a record"), &additions)?;
        }
    }
    Ok(true)
}

/// A rule is written only if it ends the asking: an `ask` entry or a guard asks whatever permits.
fn still_asks(records: &[Record], asked: &Context, additions: &[Addition]) -> Result<()> {
    let mut state = State::of(records);
    let mut manifest = state.manifest().clone();
    let mut cedar = String::new();
    if let Some(dir) = manifest_dir(records) {
        let project = config::load(&dir, None)?;
        manifest.permissions = project.manifest.permissions;
        cedar = project.cedar.unwrap_or_default();
    }
    let mut allowed = std::mem::take(&mut state.allowed);
    for addition in additions {
        match addition {
            Addition::Entry(entry) => allowed.push(entry.clone()),
            Addition::Cedar(policy) => cedar.push_str(&format!("\n{policy}\n")),
        }
    }
    let set = policy_sources::compile(
        &manifest,
        Some(&cedar).filter(|text| !text.is_empty()).map(String::as_str),
        &allowed,
    )?;
    let agent = &manifest.agent;
    let input = |request: &ActionRequest| {
        let principal = Principal::agent(&agent.name, &agent.team);
        let carried = asked.carried.clone();
        DecisionInput { carried, ..DecisionInput::new(principal, request.clone()) }
    };
    let inputs: Vec<DecisionInput> = asked.requests.iter().map(input).collect();
    let decision = set.decide_all(&inputs);
    if decision.verdict == Verdict::Permit {
        return Ok(());
    }
    let reason = format!("no rule ends the asking: {}", decision.reason);
    let next = "Approve it once or with --for-run, or change what asks.".to_owned();
    Err(CliError::CannotAllow { reason, next }.into())
}

/// A run without a manifest takes `allow` entries of its own, which its log remembers.
fn check_run_takes(list: List, additions: &[Addition]) -> Result<()> {
    let entries = additions.iter().all(|addition| matches!(addition, Addition::Entry(_)));
    if list == List::Allow && entries {
        return Ok(());
    }
    let reason = "a run without a manifest can be given `allow` entries only".to_owned();
    let next = "Write a manifest with `bedplate init`, add it there, and run that.".to_owned();
    Err(CliError::CannotAllow { reason, next }.into())
}

fn add_to_run(session: &Session, run: &RunId, additions: &[Addition]) -> Result<()> {
    let entries = additions.iter().map(|addition| addition.text().to_owned()).collect();
    let request = Request::Allow { run: run.clone(), entries, by: login() };
    block_on(session.ask(&request)).map(|_| ())
}

fn finish(session: &Session, run: &RunId, state: &State, additions: &[Addition]) -> Result<u8> {
    if session.json {
        let written: Vec<&str> = additions.iter().map(Addition::text).collect();
        Terminal::answer_json(&json!({ "run": run, "written": written }));
    }
    let next = if state.ended.is_some() {
        session.command(&format!("send {run} \"that is permitted now\""))
    } else {
        session.command(&format!("resume {run}"))
    };
    session.terminal.progress(&format!("next: {next}"));
    Ok(exit::DONE)
}

/// `policy deny ENTRY`.
fn deny(session: &Session, entry: &str, dir: &Path, yes: bool) -> Result<u8> {
    let project = config::load(dir, None)?;
    let addition = Addition::Entry(entry.to_owned());
    let question = format!("deny \"{}\" in {}? [y/n]", safe(entry), project.dir.display());
    let dir = quoted(&dir.to_string_lossy());
    let command = session.command(&format!("policy deny {} {dir}", quoted(entry)));
    if !agreed(session, yes, &question, command)? {
        Terminal::say("nothing was changed");
        return Ok(exit::FAILED);
    }
    for line in edit::write(&project.dir, List::Deny, &[addition])? {
        session.terminal.progress(&safe(&line));
    }
    tell_live(session, &project.dir)?;
    if session.json {
        Terminal::answer_json(&json!({ "written": [entry] }));
    }
    Ok(exit::DONE)
}

/// Live runs of a directory go on under its policy of now, open connections included.
fn tell_live(session: &Session, dir: &Path) -> Result<()> {
    let reader = session.reader()?;
    for run in session.live() {
        let records = reader.records(&run, BRANCH_MAIN, 0)?;
        if manifest_dir(&records).is_some_and(|of| of == dir) {
            let request = Request::Allow { run, entries: Vec::new(), by: login() };
            block_on(session.ask(&request))?;
        }
    }
    Ok(())
}

fn diff(session: &Session, old: &Path, new: &Path) -> Result<u8> {
    let lines = policy::diff(&load(old)?.1, &load(new)?.1);
    if session.json {
        Terminal::answer_json(&json!({ "differences": lines }));
        return Ok(exit::DONE);
    }
    if lines.is_empty() {
        session.terminal.progress("no difference");
    }
    for line in lines {
        let paint = if line.starts_with("wider") { Paint::Yellow } else { Paint::Green };
        Terminal::answer(&session.terminal.paint(paint, &safe(&line)));
    }
    Ok(exit::DONE)
}

fn test(session: &Session, file: &Path, dir: &Path) -> Result<u8> {
    let text = config::read_text(file)?;
    let name = file.to_string_lossy();
    let cases = policy::parse_cases(&name, &text).map_err(|error| part(&error))?;
    let (_, set) = load(dir)?;
    let results = policy::run_tests(&set, &cases);
    let failed = results.iter().filter(|result| !result.passed).count();
    if session.json {
        Terminal::answer_json(
            &json!({ "passed": results.len() - failed, "failed": failed, "cases": results }),
        );
    } else {
        for result in &results {
            let (paint, word) =
                if result.passed { (Paint::Green, "ok") } else { (Paint::Red, "failed") };
            let word = session.terminal.paint(paint, word);
            let name = safe(&result.name);
            if result.passed {
                Terminal::answer(&format!("{word} {name}"));
            } else {
                let (expected, got) = (verdict_word(result.expected), verdict_word(result.got));
                let reason = safe(&result.reason);
                Terminal::answer(&format!(
                    "{word} {name}: expected {expected}, got {got}: {reason}"
                ));
            }
        }
    }
    if failed == 0 {
        return Ok(exit::DONE);
    }
    let total = results.len();
    Err(Failed::from(CliError::PolicyCases { failed, total }).told(session.json))
}
