//! What can be typed: one place for every command, flag and their words.
//!
//! Commands of versions to come are not here: what is not listed is not accepted.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Groups of the help, in its order. Every visible command is in exactly one (tested).
pub(crate) const GROUPS: [(&str, &[&str]); 5] = [
    (
        "work",
        &[
            "run",
            "wrap",
            "send",
            "signal",
            "ps",
            "watch",
            "logs",
            "suspend",
            "resume",
            "cancel",
            "artifacts",
            "diff",
            "apply",
            "rm",
            "gc",
        ],
    ),
    ("decide", &["approvals", "approve", "deny", "resolve", "policy"]),
    ("understand", &["show", "explain", "verify"]),
    ("worlds", &["sandbox", "image", "fork", "rollback", "snapshot", "rollout", "memory"]),
    ("admin", &["init", "doctor", "secret", "serve", "bench", "df", "completion", "help"]),
];

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "bedplate",
    version,
    about = "Runs AI agents the way an operating system runs processes: one gate, one log.",
    disable_help_subcommand = true,
    subcommand_required = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that work before and after the command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Directory that holds all state [default: ~/.local/share/bedplate]
    #[arg(long, global = true, value_name = "DIR", env = "BEDPLATE_HOME", hide_env = true)]
    #[arg(hide_default_value = true, help_heading = "Everywhere")]
    pub(crate) home: Option<PathBuf>,
    /// One JSON document on standard output
    #[arg(long, global = true, help_heading = "Everywhere", conflicts_with = "jsonl")]
    pub(crate) json: bool,
    /// Records on standard output as they come, one JSON document a line
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) jsonl: bool,
    /// No progress on standard error
    #[arg(long, short, global = true, help_heading = "Everywhere")]
    pub(crate) quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent of DIR, or do a task here
    #[command(after_help = RUN_HELP)]
    Run(RunArguments),
    /// Run your own agent program here, governed
    #[command(after_help = WRAP_HELP)]
    Wrap(WrapArguments),
    /// Give a run new instructions
    Send {
        /// The run: a prefix of its id, or `last`
        run: String,
        /// What to say; `-` reads standard input
        text: String,
        #[command(flatten)]
        follow: Follow,
    },
    /// Send a run the signal it waits for
    Signal {
        /// The run
        run: String,
        /// The signal's name
        name: String,
        /// What it carries, as JSON
        #[arg(value_name = "JSON")]
        payload: Option<String>,
    },
    /// List runs, newest first
    Ps,
    /// Follow a run until it rests
    Watch {
        /// The run
        run: String,
    },
    /// Print the whole outputs of a run's actions
    Logs {
        /// The run
        run: String,
    },
    /// Set a run aside
    Suspend {
        /// The run
        run: String,
    },
    /// Take a run up where it was left
    Resume {
        /// The run
        run: String,
        #[command(flatten)]
        follow: Follow,
    },
    /// End a run
    Cancel {
        /// The run
        run: String,
    },
    /// List a run's results, or copy them out
    Artifacts {
        /// The run
        run: String,
        /// Copy them to this directory
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Show what a run changed, or what differs between two moments
    #[command(after_help = DIFF_HELP)]
    Diff {
        /// The run, RUN@SEQ, or RUN@SNAPSHOT
        run: String,
        /// The other moment: @SEQ or @SNAPSHOT of the same run, or another run
        #[arg(value_name = "OTHER")]
        other: Option<String>,
        /// With the text that differs
        #[arg(long)]
        text: bool,
    },
    /// Bring what a run changed to your copy
    Apply {
        /// The run
        run: String,
        /// Only these paths, relative to the workspace
        paths: Vec<String>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Remove a run and all that is kept of it
    Rm {
        /// The run
        run: String,
    },
    /// Remove what no run needs
    Gc,
    /// List what waits for a person
    Approvals,
    /// Let an asked action happen, once
    Approve(ApproveArguments),
    /// Refuse an asked action, or take back what was approved for a run
    Deny {
        /// The approval
        id: String,
        /// Why: the agent is told
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Who says so, when you bring another person's answer
        #[arg(long = "as", value_name = "PERSON")]
        speaks_for: Option<String>,
        /// Only record it; do not go on
        #[arg(long)]
        no_resume: bool,
    },
    /// Say what became of an action in doubt
    Resolve(ResolveArguments),
    /// Look at, check and change what an agent may do
    #[command(subcommand, disable_help_subcommand = true)]
    Policy(PolicyCommand),
    /// Show a run's records, or its state at one of them
    Show {
        /// The run, or RUN@SEQ
        run: String,
    },
    /// Say what happened in a run, and why
    Explain {
        /// The run, or RUN@SEQ
        run: String,
    },
    /// Check a run's log against its proofs
    Verify {
        /// The run
        run: String,
    },
    /// Commands in a sandbox, without an agent
    #[command(subcommand, disable_help_subcommand = true)]
    Sandbox(SandboxCommand),
    /// Keep images for sandboxes to stand on, instead of the host
    #[command(subcommand, disable_help_subcommand = true)]
    Image(ImageCommand),
    /// Begin new runs in the middle of one: its records and files up to there are shared
    #[command(after_help = FORK_HELP)]
    Fork {
        /// The run, RUN@SEQ, or RUN@SNAPSHOT
        run: String,
        /// The last record that both have, or a snapshot [default: the newest]
        #[arg(long, value_name = "SEQ|SNAPSHOT")]
        at: Option<String>,
        /// How many
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(runtime::FORKS_MAX)))]
        count: u32,
    },
    /// Try a task many times from one world: a result a line, as JSON
    #[command(after_help = ROLLOUT_HELP)]
    Rollout(RolloutArguments),
    /// Take a run back to an earlier record, files and all
    #[command(after_help = ROLLBACK_HELP)]
    #[command(group(clap::ArgGroup::new("where").args(["to", "undo"])))]
    Rollback {
        /// The run, RUN@SEQ, or RUN@SNAPSHOT
        run: String,
        /// To this record, or this snapshot
        #[arg(long, value_name = "SEQ|SNAPSHOT")]
        to: Option<String>,
        /// To where it stood before it last went back
        #[arg(long)]
        undo: bool,
        /// Go back although something that was done stays done
        #[arg(long)]
        leave_effects: bool,
    },
    /// Give the moment a run is at a name
    Snapshot {
        /// The run
        run: String,
        /// The name: letters, digits, `_`, `-`, `.` [default: one is made]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// What agents keep beyond their runs: look at it, change it, merge what a run changed
    #[command(subcommand, disable_help_subcommand = true)]
    Memory(MemoryCommand),
    /// Write a manifest here
    Init,
    /// Say what this host can do, and how to get what is missing
    Doctor,
    /// Keep secrets, encrypted, for agents to use without seeing them
    #[command(subcommand, disable_help_subcommand = true)]
    Secret(SecretCommand),
    /// Answer programs over HTTP: runs, their records, approvals
    #[command(after_help = SERVE_HELP)]
    Serve {
        /// The Unix socket [default: HOME/serve.sock]
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// Also listen here, on loopback; the token is in HOME/serve.token
        #[arg(long, value_name = "127.0.0.1:PORT")]
        listen: Option<std::net::SocketAddr>,
    },
    /// Measure on this host, beside a peer
    #[command(after_help = BENCH_HELP)]
    Bench(BenchArguments),
    /// Say what takes room in the home
    Df,
    /// Print a script that completes commands in a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Explain a command or an error code
    Help {
        /// A command, or a code such as BP-RUN-006
        topic: Vec<String>,
    },
    /// The scripted model as a server of its own, for tests of other programs
    #[command(hide = true)]
    ScriptServer {
        /// The file of turns
        file: PathBuf,
        /// Where it listens
        #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
        listen: std::net::SocketAddr,
    },
}

const RUN_HELP: &str = "\
Without DIR, the manifest of the current directory. A sentence that is no directory is a task: an
agent is made on the spot, sees this directory as its workspace, and changes nothing of yours until
`bedplate apply`.

Exit status: 0 done, 1 failed or a check did not pass, 2 usage or configuration, 3 evidence does not
verify, 4 waits for a person.";

const DIFF_HELP: &str = "\
Without a moment: from the run's beginning to now, with the text that differs. With one: from there
to now. With two: from the first to the second, which may be of another run.

A added, M changed, D removed, R renamed, P only permissions.";

const ROLLBACK_HELP: &str = "\
The run is as it was after that record: its conversation, its actions, its files. What it spent, and
what was sent, stays. Nothing is lost: `bedplate rollback RUN --undo` goes forward again. When an
irreversible action, or an `apply`, lies between, it is refused unless you say --leave-effects.

The run is set aside: `bedplate resume RUN` goes on from there, `bedplate send RUN TEXT` otherwise.";

const FORK_HELP: &str = "\
Prints the ids of the new runs, one a line. Each is set aside: `bedplate resume ID` takes it up,
`bedplate send ID TEXT` with new instructions. It has keys, placeholders of secrets and approvals of
its own; what was in flight is done again, or, when it cannot be taken back, left alone.";

const ROLLOUT_HELP: &str = "\
Each attempt is a run of its own, forked from one that has only begun, with a sandbox and a seed of
its own (BEDPLATE_SEED, BEDPLATE_ATTEMPT inside). Its reward is the part of the checks that passed;
without checks, 1 when it is done. One that asks a person, or takes too long, is ended and counts 0.
Results come in the order of the attempts, one JSON object a line; --json prints one document.";

const WRAP_HELP: &str = "\
The program runs in a sandbox on this terminal. It sees this directory as its workspace, and
changes nothing of yours until `bedplate apply`. The manifest here says what it may do; without
one, outward actions are asked. Its calls of models go to http://models.bedplate.internal inside,
which Codex, Claude Code and the providers' libraries are pointed at; it holds no key.

Exit status: the program's own; 125 if bedplate failed, 126 not executable, 127 not found, 128 and
the number of the signal that ended it; 4 if it waits for a person.";

const SERVE_HELP: &str = "\
It serves until it is ended (Ctrl-C), and holds nothing: runs go on without it. Whoever may open the
socket, or has the token, may do what you may do with this home. docs/serve.md has the API, which
the server also gives as /openapi.json.";

/// `wrap`.
#[derive(Debug, Args)]
pub(crate) struct WrapArguments {
    /// A route of the manifest, PROVIDER/MODEL, or script/PATH
    #[arg(long, value_name = "ROUTE")]
    pub(crate) model: Option<String>,
    /// Use bedplate.NAME.toml over the manifest
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) follow: Follow,
}

/// What is to be run.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// A directory with a bedplate.toml, or a task in quotes
    #[arg(value_name = "DIR|TASK")]
    pub(crate) target: Option<String>,
    /// What to say first; `-` reads standard input
    #[arg(long, value_name = "TEXT")]
    pub(crate) input: Option<String>,
    /// A route of the manifest, PROVIDER/MODEL, or script/PATH
    #[arg(long, value_name = "ROUTE")]
    pub(crate) model: Option<String>,
    /// Use bedplate.NAME.toml over the manifest
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Option<String>,
    /// Keep what hosts answer, to replay it
    #[arg(long, conflicts_with = "replay_network")]
    pub(crate) record_network: bool,
    /// Give programs the answers of this run's hosts, and nothing else of the network
    #[arg(long, value_name = "RUN")]
    pub(crate) replay_network: Option<String>,
}

/// `rollout`.
#[derive(Debug, Args)]
pub(crate) struct RolloutArguments {
    #[command(flatten)]
    pub(crate) what: What,
    /// Attempts
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=i64::from(runtime::FORKS_MAX)))]
    pub(crate) count: u32,
    /// Attempts at once [default: one a processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) parallel: Option<u32>,
    /// Longest an attempt may take
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Seed of the first attempt; the next has the next
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// Whether to stay with the run.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Follow {
    /// Do not wait for it
    #[arg(long)]
    pub(crate) detach: bool,
}

/// `resolve`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["happened", "not_happened", "abandon"])))]
pub(crate) struct ResolveArguments {
    /// The action in doubt, as `bedplate approvals` lists it
    pub(crate) id: String,
    /// It happened
    #[arg(long)]
    pub(crate) happened: bool,
    /// What it gave, as JSON
    #[arg(long, value_name = "JSON", conflicts_with_all = ["not_happened", "abandon"])]
    pub(crate) result: Option<String>,
    /// It did not happen; it may be done again
    #[arg(long)]
    pub(crate) not_happened: bool,
    /// Nobody knows; go on without it
    #[arg(long)]
    pub(crate) abandon: bool,
    /// Only record it; do not go on
    #[arg(long)]
    pub(crate) no_resume: bool,
}

/// `approve`.
#[derive(Debug, Args)]
pub(crate) struct ApproveArguments {
    /// The approval, as `bedplate approvals` lists it
    pub(crate) id: String,
    /// Approve its like for the rest of this run too, as `approvals` says what that opens
    #[arg(long, conflicts_with = "rule")]
    pub(crate) for_run: bool,
    /// Write the narrowest rule that permits it from now on, after showing it
    #[arg(long)]
    pub(crate) rule: bool,
    /// Write the rule without asking
    #[arg(long, requires = "rule")]
    pub(crate) yes: bool,
    /// Who says so, when you bring another person's answer
    #[arg(long = "as", value_name = "PERSON")]
    pub(crate) speaks_for: Option<String>,
    /// Only record it; do not go on
    #[arg(long)]
    pub(crate) no_resume: bool,
}

/// `policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print what an agent may do
    Show {
        /// A directory, or a run
        #[arg(value_name = "DIR|RUN")]
        target: Option<String>,
        /// As Cedar
        #[arg(long)]
        cedar: bool,
    },
    /// Check a manifest's policy without running anything
    Check {
        /// The manifest's directory
        dir: Option<PathBuf>,
    },
    /// Permit what a run was denied, as narrowly as can be
    Allow {
        /// The run
        run: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Have what a run was denied asked instead
    Ask {
        /// The run
        run: String,
        /// Do not ask before writing
        #[arg(long, short)]
        yes: bool,
    },
    /// Forbid ENTRY in a manifest, whatever else says
    Deny {
        /// A tool, `METHOD host/path*`, a host, `git push host/owner/repo refs/heads/x`, `install
        /// host`, or secret:NAME@host
        entry: String,
        /// The manifest's directory
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Say what differs between two agents' policies
    Diff {
        /// The old one's directory
        old: PathBuf,
        /// The new one's directory
        new: PathBuf,
    },
    /// Hold a policy against a file of expected decisions
    Test {
        /// The file of cases
        file: PathBuf,
        /// The manifest's directory
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
}

/// `sandbox`.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Run one command in a new sandbox, then drop it
    Run {
        /// See this directory as the workspace; changes to it are dropped
        #[arg(long, value_name = "DIR")]
        workspace: Option<PathBuf>,
        /// What the command may do and reach: Cedar, or a bedplate.toml
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Stand on this image instead of the host: oci:DIR[:TAG], archive:FILE or REGISTRY/NAME:TAG
        #[arg(long, value_name = "IMAGE")]
        image: Option<String>,
        /// The command; without one, the image's own
        #[arg(last = true, required_unless_present = "image", value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Make a sandbox that is kept, and print its id
    Create {
        /// Begin with the files of this directory, which is never changed
        #[arg(long, value_name = "DIR")]
        workspace: Option<PathBuf>,
        /// What its commands may do and reach: Cedar, or a bedplate.toml
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Stand on this image instead of the host: oci:DIR[:TAG], archive:FILE or REGISTRY/NAME:TAG
        #[arg(long, value_name = "IMAGE")]
        image: Option<String>,
    },
    /// Run a command in a kept sandbox; its exit status is ours
    Exec {
        /// The sandbox
        id: String,
        /// The command
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Name the moment a kept sandbox is at, and print ID@NAME
    Snapshot {
        /// The sandbox
        id: String,
    },
    /// Make sandboxes that go on from a kept one, and print their ids
    Fork {
        /// The sandbox, or ID@SNAPSHOT
        from: String,
        /// How many
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(runtime::FORKS_MAX)))]
        count: u32,
    },
    /// Take a kept sandbox back to a snapshot
    Rollback {
        /// The sandbox
        id: String,
        /// To this snapshot: ID@NAME, or NAME
        #[arg(long, value_name = "SNAPSHOT")]
        to: String,
    },
    /// Print what differs between two moments of kept sandboxes: a letter (A, M, D, R, P), a tab, the path
    Diff {
        /// ID, from its beginning; or ID@SNAPSHOT
        from: String,
        /// ID or ID@SNAPSHOT [default: now]
        to: Option<String>,
    },
    /// List the sandboxes that are kept
    Ls,
    /// End a kept sandbox and remove what only it needs
    Rm {
        /// The sandbox
        id: String,
    },
}

/// `image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Bring an image here, and print its digest
    Pull {
        /// oci:DIR[:TAG], archive:FILE, REGISTRY/NAME[:TAG] or REGISTRY/NAME@sha256:DIGEST
        image: String,
    },
    /// List the images that are here
    Ls,
    /// Show what an image is
    Show {
        /// A reference, or the first digits of a digest
        image: String,
    },
    /// Remove an image; one that a run needs is kept for it
    Rm {
        /// A reference, or the first digits of a digest
        image: String,
    },
}

/// Whose memory is meant.
#[derive(Debug, clap::Args)]
pub(crate) struct Whose {
    /// The agent's name
    pub(crate) agent: String,
    /// The user it serves [default: you]
    #[arg(long = "for", value_name = "USER", conflicts_with = "team")]
    pub(crate) user: Option<String>,
    /// The team it serves, in place of a user
    #[arg(long, value_name = "TEAM")]
    pub(crate) team: Option<String>,
}

/// Whose change counts where both changed the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Taken {
    /// The run's
    Run,
    /// What is there already
    Memory,
}

impl From<Taken> for runtime::protocol::Take {
    fn from(taken: Taken) -> Self {
        match taken {
            Taken::Run => Self::Run,
            Taken::Memory => Self::Memory,
        }
    }
}

/// `memory`.
#[derive(Debug, Subcommand)]
pub(crate) enum MemoryCommand {
    /// List the memories of this home
    Ls,
    /// List a memory's files, or print one of them
    Show {
        #[command(flatten)]
        whose: Whose,
        /// The file
        path: Option<String>,
        /// As it was in this version [default: the newest]
        #[arg(long, value_name = "N")]
        version: Option<u64>,
    },
    /// List a memory's versions: when, by which run or person
    Log {
        #[command(flatten)]
        whose: Whose,
    },
    /// Print what a run changed in its memory that others do not see
    Diff {
        /// The run
        run: String,
        /// With the text that differs
        #[arg(long)]
        text: bool,
    },
    /// Create or replace a file with what standard input holds
    Put {
        #[command(flatten)]
        whose: Whose,
        /// The file
        path: String,
    },
    /// Open a file in your editor ($VISUAL, $EDITOR) and keep what you make of it
    Edit {
        #[command(flatten)]
        whose: Whose,
        /// The file
        path: String,
    },
    /// Remove a file, or a directory with all that is in it
    Rm {
        #[command(flatten)]
        whose: Whose,
        /// The file
        path: String,
    },
    /// Make an earlier version the newest again
    Revert {
        #[command(flatten)]
        whose: Whose,
        /// Its number
        version: u64,
    },
    /// Remove a memory with all its versions
    Forget {
        #[command(flatten)]
        whose: Whose,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Merge what a run changed in its memory and was refused, or did not come to
    Merge {
        /// The run
        run: String,
        /// Whose change counts where both changed the same [default: it is refused]
        #[arg(long, value_name = "SIDE")]
        take: Option<Taken>,
    },
}

/// `secret`.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Set a secret to what standard input holds, without one line end
    Set {
        /// Up to 64 small letters, digits, `_` and `-`
        name: String,
        /// What it is: text, or a document in JSON or TOML (see docs/secrets.md)
        #[arg(long, default_value = "plain", value_parser = ["plain", "oauth-client", "aws-sigv4"])]
        kind: String,
    },
    /// List secrets: names, versions and times, never values
    Ls,
    /// Overwrite and remove a secret
    Rm {
        /// The secret
        name: String,
    },
}

const BENCH_HELP: &str = "\
`soak` makes and ends sandboxes, suspends and resumes, and kills its own processes meanwhile. Its exit
status is 1 when anything is left over, or something has grown.";

/// `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// What
    pub(crate) what: BenchWhat,
    /// Only this part of `worlds`
    #[arg(long)]
    pub(crate) part: Option<BenchPart>,
    /// How often
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,
    /// Idle sandboxes that `worlds` keeps at once
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    pub(crate) idle: u32,
    /// Files of the large tree of `worlds`; a tenth as many change, or are steps of a run
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub(crate) files: u32,
    /// Print the raw samples as JSON lines
    #[arg(long)]
    pub(crate) raw: bool,
}

/// The parts of `bench worlds`, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchPart {
    /// A new sandbox up to its first output: warm, cold and 100 at once, beside peers
    FirstOutput,
    /// Sealing: alone, and at a turn's end with the disk busy
    Seal,
    /// Going to another upper
    Upper,
    /// Comparing
    Diff,
    /// Forking, one and many
    Fork,
    /// Going back
    Rollback,
    /// Resuming up to the next command's output
    Resume,
    /// 50 scripted actions, beside their commands bare on the host
    Trajectory,
    /// Many idle sandboxes: their memory, and what they leave
    Idle,
}

/// What `bench` can measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchWhat {
    /// A sandbox's whole life, beside bubblewrap
    Sandbox,
    /// A durable step of the log, beside a bare fdatasync
    Store,
    /// Starting this program, beside /bin/true
    Start,
    /// The network boundary, beside no proxy and mitmproxy; `--count` requests a turn
    Gate,
    /// The privacy router over a request of 64 KiB, beside reading and writing its JSON
    Privacy,
    /// Making sandboxes, keeping many, sealing, comparing, forking, going back and on
    Worlds,
    /// `--count` cycles of making, ending, suspending and resuming, with kills: what is left over
    Soak,
}
