//! `help`, `completion`, and the hidden `script-server`.

use crate::arguments::{Cli, GROUPS};
use crate::error::{CliError, Failed, Result, exit};
use crate::pages;
use crate::session::{Session, block_on};
use crate::terminal::Terminal;
use clap::CommandFactory;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use types::Coded;

/// The command line with our own overview.
pub(crate) fn command_line() -> clap::Command {
    Cli::command().override_help(overview())
}

/// Names of all visible commands.
pub(crate) fn command_names() -> Vec<String> {
    Cli::command()
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .collect()
}

/// All commands in groups.
pub(crate) fn overview() -> String {
    const NAME_WIDTH: usize = 11;
    let cli = Cli::command();
    let mut text =
        format!("{}\n\nUsage: bedplate COMMAND [OPTIONS]\n", cli.get_about().unwrap_or_default());
    for (group, names) in GROUPS {
        let _ = write!(text, "\n{group}\n");
        for name in names {
            let about = cli.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {name:<NAME_WIDTH$} {about}");
        }
    }
    text.push_str(EVERYWHERE);
    text
}

const EVERYWHERE: &str = "
everywhere
  --home DIR   Directory that holds all state (BEDPLATE_HOME) [default: ~/.local/share/bedplate]
  --json       One JSON document on standard output
  --jsonl      Records on standard output as they come, one JSON document a line
  --quiet      No progress on standard error

RUN is a prefix of a run's id, or `last`. Exit status: 0 done, 1 failed, 2 usage or configuration,
3 evidence does not verify, 4 waits for a person.
`bedplate help COMMAND` says more, `bedplate help BP-RUN-006` explains an error code.
";

/// `help`.
pub(crate) fn help(session: &Session, topic: &[String]) -> Result<u8> {
    let text = match topic {
        [] => overview(),
        [code] if code.to_ascii_uppercase().starts_with("BP-") => page(code)?,
        names => of_command(names)?,
    };
    if session.json {
        Terminal::answer_json(&serde_json::json!({ "help": text }));
    } else {
        Terminal::answer(text.trim_end());
    }
    Ok(exit::DONE)
}

fn page(code: &str) -> Result<String> {
    let wanted = code.to_ascii_uppercase();
    let known = || pages::PAGES.iter().map(|(code, _)| *code);
    match pages::PAGES.iter().find(|(code, _)| *code == wanted) {
        Some((_, text)) => Ok((*text).to_owned()),
        None => Err(no_help(&wanted, known()).into()),
    }
}

fn no_help<'a>(topic: &str, known: impl Iterator<Item = &'a str>) -> CliError {
    let nearest = types::manifest::nearest(topic, known);
    let hint = nearest.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default();
    CliError::NoHelp { topic: topic.chars().take(80).collect(), hint }
}

fn of_command(names: &[String]) -> Result<String> {
    let mut command = Cli::command();
    command.build();
    let mut found = &mut command;
    for name in names {
        let known: Vec<String> = found
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| command.get_name().to_owned())
            .collect();
        if !known.contains(name) {
            return Err(no_help(name, known.iter().map(String::as_str)).into());
        }
        found = found.find_subcommand_mut(name).expect("it was listed above");
    }
    Ok(found.render_long_help().to_string())
}

/// `completion`.
pub(crate) fn completion(shell: clap_complete::Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bedplate", &mut script);
    Terminal::answer_bytes(&script);
    Ok(exit::DONE)
}

/// `script-server`: prints its base address, then serves until it is killed.
pub(crate) fn script_server(file: &Path, listen: SocketAddr) -> Result<u8> {
    let fail = |reason: String| CliError::Script { path: file.to_owned(), reason };
    let text = runtime::config::read_text(file)?;
    let script = models::script::parse(&text, &file.to_string_lossy());
    let script = Arc::new(script.map_err(|error| Failed::of(error.failure()))?);
    block_on(async {
        let listener = TcpListener::bind(listen).await.map_err(|e| fail(e.to_string()))?;
        let address = listener.local_addr().map_err(|e| fail(e.to_string()))?;
        Terminal::answer(&format!("http://{address}/v1"));
        let served = models::script::serve(script, listener).await;
        served.map_err(|error| Failed::of(error.failure()))
    })?;
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_command_is_in_one_group() {
        let grouped: Vec<&str> =
            GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let unique: BTreeSet<&str> = grouped.iter().copied().collect();
        assert_eq!(grouped.len(), unique.len());
        let names = command_names();
        let known: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(unique, known);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_overview_reads_well() {
        insta::assert_snapshot!(overview());
    }

    #[test]
    fn help_of_each_command_reads_well() {
        let mut all = String::new();
        for name in command_names() {
            all.push_str(&of_command(&[name]).expect("a command"));
            all.push_str("\n--------\n");
        }
        insta::assert_snapshot!(all);
    }

    #[test]
    fn what_has_no_help_says_so() {
        let check = |topic: &str, hint: &str| {
            let names = [topic.to_owned()];
            let failed = if topic.starts_with("BP-") { page(topic) } else { of_command(&names) };
            let failed = failed.expect_err(topic);
            assert_eq!((failed.failure.code.as_str(), failed.exit), ("BP-CLI-012", 2));
            assert!(failed.failure.message.contains(hint), "{}", failed.failure.message);
        };
        check("resum", "did you mean 'resume'");
        check("script-server", "script-server");
        check("BP-CLI-999", "BP-CLI-999");
    }

    #[test]
    fn codes_have_pages() {
        assert!(page("bp-cli-001").expect("a page").starts_with("# BP-CLI-001: "));
    }
}
