//! The commands, one file a group: read the command line, do it, print what failed.

mod answers;
mod bench;
pub(crate) use bench::perform_load;
mod doctor;
mod files;
mod follow;
mod help;
mod image;
mod init;
mod lists;
mod memory;
mod policy;
mod rollout;
mod run;
mod sandbox;
mod secret;
mod serve;
mod typing;
mod understand;
mod worlds;
mod wrap;

use crate::arguments::{Cli, Command};
use crate::error::{CliError, Failed, Result, exit};
use crate::session::{Session, keys_of, login};
use crate::terminal::{Paint, Terminal, safe_block};
use clap::FromArgMatches;
use clap::error::ErrorKind;
use runtime::protocol::Request;
use std::ffi::OsString;

/// Reads the command line and does what it says. Gives the exit status.
pub(crate) fn dispatch(arguments: &[OsString]) -> u8 {
    let json = wants_json(arguments);
    let cli = match parse(arguments) {
        Ok(Parsed::Command(cli)) => *cli,
        Ok(Parsed::Text(text)) => {
            Terminal::answer(text.trim_end());
            return exit::DONE;
        }
        Err(failed) => return complain(&failed, json),
    };
    match Session::new(&cli.global).and_then(|session| perform(&session, cli.command)) {
        Ok(status) => status,
        Err(failed) => complain(&failed, json),
    }
}

enum Parsed {
    Command(Box<Cli>),
    /// Help or the version.
    Text(String),
}

fn parse(arguments: &[OsString]) -> Result<Parsed> {
    if arguments.len() < 2 {
        return Ok(Parsed::Text(help::overview()));
    }
    let matches = help::command_line().try_get_matches_from(arguments);
    match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => Ok(Parsed::Command(Box::new(cli))),
        Err(error)
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            Ok(Parsed::Text(error.to_string()))
        }
        Err(error) => Err(usage(&error, arguments).into()),
    }
}

/// What clap says in several paragraphs, as one message: what is wrong and its tip, without the
/// usage.
fn usage(error: &clap::Error, arguments: &[OsString]) -> CliError {
    let text = error.to_string();
    let paragraphs = text
        .split("\n\n")
        .take_while(|p| !p.starts_with("Usage:") && !p.starts_with("For more information"));
    let words: Vec<&str> = paragraphs.flat_map(str::split_whitespace).collect();
    let message = words.join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    let known = help::command_names();
    let help = arguments.iter().skip(1).find_map(|argument| {
        let argument = argument.to_str()?;
        known.iter().find(|name| *name == argument).cloned()
    });
    CliError::Usage { message, help: help.unwrap_or_default() }
}

/// Whether `--json` or `--jsonl` was typed, even on a line that cannot be read.
fn wants_json(arguments: &[OsString]) -> bool {
    arguments.iter().skip(1).take_while(|a| *a != "--").any(|a| a == "--json")
}

/// Prints a failure: text for people, and JSON where JSON was asked for. Gives the exit status.
fn complain(failed: &Failed, json: bool) -> u8 {
    tell(failed);
    if json && !failed.told {
        Terminal::answer_json(&serde_json::json!({ "error": failed.failure }));
    }
    failed.exit
}

/// Prints a failure for people.
fn tell(failed: &Failed) {
    let failure = &failed.failure;
    let terminal = Terminal::new(false);
    let head = terminal.paint(Paint::Red, &format!("error {}:", failure.code));
    Terminal::say(&format!("{head} {}", safe_block(&failure.message)));
    if !failure.next.is_empty() {
        Terminal::say(&format!("  next: {}", safe_block(&failure.next)));
    }
}

fn perform(session: &Session, command: Command) -> Result<u8> {
    match command {
        Command::Run(arguments) => run::run(session, &arguments),
        Command::Wrap(arguments) => wrap::wrap(session, &arguments),
        Command::Send { run, text, follow } => run::send(session, &run, &text, follow),
        Command::Resume { run, follow } => run::resume(session, &run, follow),
        Command::Watch { run } => run::watch(session, &run),
        Command::Signal { run, name, payload } => signal(session, &run, name, payload.as_deref()),
        Command::Suspend { run } => {
            let run = session.find(&run)?;
            run::until_rest(session, &run, Request::Suspend { run: run.clone() }, "set aside")
        }
        Command::Cancel { run } => {
            let run = session.find(&run)?;
            let request = Request::Cancel { run: run.clone(), by: login() };
            run::until_rest(session, &run, request, "cancelled")
        }
        Command::Rm { run } => {
            let run = session.find(&run)?;
            let said = format!("removed: {run}");
            run::simple(session, &Request::Remove { run }, &said)
        }
        Command::Gc => files::collect(session),
        Command::Ps => lists::ps(session),
        Command::Logs { run } => files::logs(session, &run),
        Command::Artifacts { run, out } => files::artifacts(session, &run, out.as_deref()),
        Command::Diff { run, other: None, text: _ } if !run.contains('@') => {
            files::diff(session, &run)
        }
        Command::Diff { run, other, text } => {
            files::diff_moments(session, &run, other.as_deref(), text)
        }
        Command::Apply { run, paths, yes } => files::apply(session, &run, paths, yes),
        Command::Approvals => answers::approvals(session),
        Command::Approve(arguments) => answers::approve(session, arguments),
        Command::Deny { id, reason, speaks_for, no_resume } => {
            answers::deny(session, &id, reason, speaks_for, !no_resume)
        }
        Command::Resolve(arguments) => answers::resolve(session, &arguments),
        Command::Policy(command) => policy::perform(session, command),
        Command::Show { run } => understand::show(session, &run),
        Command::Explain { run } => understand::explain(session, &run),
        Command::Verify { run } => understand::verify(session, &run),
        Command::Sandbox(command) => sandbox::kept::perform(session, command),
        Command::Image(command) => image::perform(session, &command),
        Command::Fork { run, at, count } => worlds::fork(session, &run, at.as_deref(), count),
        Command::Rollout(arguments) => rollout::rollout(session, &arguments),
        Command::Rollback { run, to, undo, leave_effects } => {
            worlds::roll_back(session, &run, to.as_deref(), undo, leave_effects)
        }
        Command::Snapshot { run, name } => worlds::snapshot(session, &run, name),
        Command::Memory(command) => memory::perform(session, command),
        Command::Init => init::init(session),
        Command::Doctor => doctor::doctor(session),
        Command::Secret(command) => secret::perform(session, &command),
        Command::Serve { socket, listen } => serve::serve(session, socket, listen),
        Command::Bench(arguments) => bench::bench(session, &arguments),
        Command::Df => lists::df(session),
        Command::Completion { shell } => help::completion(shell),
        Command::Help { topic } => help::help(session, &topic),
        Command::ScriptServer { file, listen } => help::script_server(&file, listen),
    }
}

fn signal(session: &Session, run: &str, name: String, json: Option<&str>) -> Result<u8> {
    let (run, records) = session.run(run)?;
    let payload =
        json.map_or(Ok(serde_json::Value::Null), |text| json_value("the signal", text))?;
    let keys = keys_of(&records);
    let said = format!("sent: {name} to {run}");
    run::simple(session, &Request::Signal { run, name, payload, by: login(), keys }, &said)
}

/// A JSON argument.
fn json_value(what: &str, text: &str) -> Result<serde_json::Value> {
    serde_json::from_str(text).map_err(|error| {
        CliError::NotJson { what: what.to_owned(), reason: error.to_string() }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<OsString> {
        std::iter::once("bedplate").chain(line.split_whitespace()).map(OsString::from).collect()
    }

    #[test]
    fn bad_lines_are_usage_errors_that_name_the_help() {
        let check = |line: &str, message: &str, help: &str| {
            let failed = parse(&arguments(line)).map(|_| ()).expect_err(line);
            assert_eq!((failed.failure.code.as_str(), failed.exit), ("BP-CLI-001", 2), "{line}");
            let said = &failed.failure.message;
            assert!(said.contains(message), "{line}: {said}");
            assert!(!said.contains("Usage:") && !said.contains('\n'), "{said}");
            assert_eq!(failed.failure.next, help, "{line}");
        };
        check("rnu", "'rnu'", "bedplate help");
        check("run --input", "--input <TEXT>", "bedplate help run");
        check("deny x", "--reason <TEXT>", "bedplate help deny");
        check("resolve x", "--happened", "bedplate help resolve");
        check("resolve x --happened --abandon", "cannot be used with", "bedplate help resolve");
        check("resolve x --abandon --result 1", "--abandon", "bedplate help resolve");
        check("sandbox run", "COMMAND", "bedplate help sandbox");
        check("bench sandbox --count 0", "0", "bedplate help bench");
        check("ps --json --jsonl", "cannot be used with", "bedplate help ps");
        check("memorise", "memory", "bedplate help");
    }

    #[test]
    fn global_flags_work_before_and_after() {
        let check = |line: &str| match parse(&arguments(line)) {
            Ok(Parsed::Command(cli)) => {
                assert_eq!(cli.global.home.as_deref(), Some(std::path::Path::new("/h")), "{line}");
                assert!(cli.global.json, "{line}");
            }
            _ => panic!("{line}"),
        };
        check("--home /h --json ps");
        check("ps --home /h --json");
        check("--json policy --home /h show");
        check("policy show --home=/h --json");
    }

    #[test]
    fn json_is_recognised_on_lines_that_cannot_be_read() {
        assert!(wants_json(&arguments("rnu --json")));
        assert!(!wants_json(&arguments("sandbox run -- tool --json")));
    }
}
