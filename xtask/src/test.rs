//! `cargo xtask test`: brings what the tests need and runs everything.
//!
//! Always: every stage runs, whatever failed before it; a stage without a single test fails; the
//! last line is `N passed, N failed`, where each stage that is no test counts once. As root, the
//! crates that meet the kernel are tested twice, as root and as an ordinary user, because people
//! run both. Never: a change to the host beyond the Debian packages of [`needs`].

mod build;
mod left;
mod needs;
mod ordinary;
mod peers;
mod process;
mod tally;

use build::{Binary, Build};
use ordinary::World;
pub(crate) use peers::{bypass, gate};
use process::{Job, Outcome};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};
use tally::Tally;

/// The crates that behave differently for root and for an ordinary user.
const MEET_THE_KERNEL: [&str; 6] = [
    "bedplate",
    "bedplate-gate",
    "bedplate-image",
    "bedplate-sandbox",
    "bedplate-store",
    "bedplate-tools",
];

/// The form of the code.
pub(crate) const FMT: &[&str] = &["fmt", "--all", "--check"];

/// The lints of the workspace.
pub(crate) const CLIPPY: &[&str] =
    &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];

/// A cargo command: compiling everything on two cores, and some more.
const CARGO_LIMIT: Duration = Duration::from_secs(25 * 60);

/// One test executable.
const BINARY_LIMIT: Duration = Duration::from_secs(15 * 60);

/// One stage of the run, for the summary.
struct Stage {
    name: String,
    tally: Tally,
}

/// Everything the stages share.
struct Session {
    root: PathBuf,
    target: PathBuf,
    /// The temporary folder of this run; short, because paths of sockets are.
    temporary: PathBuf,
    /// Variables for the tests, besides those of the host.
    variables: Vec<(OsString, OsString)>,
    stages: Vec<Stage>,
}

/// Runs the tests of `packages`, or of all with every other stage when there are none. Whether all
/// is well; everything has been said by then, the closing line last.
pub(crate) fn run(root: &Path, packages: &[&str]) -> bool {
    let needed = needs::bring();
    let made = needed.and_then(|()| Session::new(root));
    let mut session = match made {
        Ok(session) => session,
        Err(why) => {
            println!("{why}\n{}", Tally::of_stage(false));
            return false;
        }
    };
    // Peers are fetched while the house is in order: one waits for the network, one computes.
    std::thread::scope(|scope| {
        let (root, target) = (session.root.clone(), session.target.clone());
        let peers = scope.spawn(move || peers::bring(&root, &target));
        if packages.is_empty() {
            session.house_stages();
        }
        session.test_stages(packages, || peers.join().unwrap_or_else(|_| Err("panicked".into())));
    });
    session.close()
}

/// What is run, by whom.
#[derive(Clone, Copy)]
struct Round<'a> {
    build: &'a Build,
    /// The ordinary user, or we ourselves.
    user: Option<&'a World>,
}

impl Round<'_> {
    const fn label(&self) -> &'static str {
        match self.user {
            Some(_) => " as an ordinary user",
            None => "",
        }
    }
}

impl Session {
    fn new(root: &Path) -> Result<Self, String> {
        let temporary = env::temp_dir().join(format!("bp{}", std::process::id()));
        fs::create_dir_all(temporary.join("home"))
            .map_err(|e| format!("cannot make {}: {e}", temporary.display()))?;
        let target = build::target_directory(root)?;
        Ok(Self { root: root.to_owned(), target, temporary, variables: Vec::new(), stages: vec![] })
    }

    fn house_stages(&mut self) {
        self.stage("tidy", |session| {
            let found = crate::tidy::run(&session.root, false).map_err(|e| e.to_string())?;
            found.iter().for_each(|finding| println!("{finding}"));
            if found.is_empty() { Ok(()) } else { Err(format!("{} findings", found.len())) }
        });
        self.cargo_stage("fmt", FMT);
        self.cargo_stage("clippy", CLIPPY);
    }

    /// A stage that is no test: passed or failed as one.
    fn stage<T>(&mut self, name: &str, work: impl FnOnce(&Self) -> Result<T, String>) -> Option<T> {
        println!("\n== {name}");
        let started = Instant::now();
        let done = work(self);
        match &done {
            Ok(_) => println!("ok    {name}  {:.1} s", started.elapsed().as_secs_f64()),
            Err(why) => println!("FAIL  {name}: {why}"),
        }
        self.stages.push(Stage { name: name.to_owned(), tally: Tally::of_stage(done.is_ok()) });
        done.ok()
    }

    fn cargo_stage(&mut self, name: &str, arguments: &[&str]) {
        self.stage(name, |session| {
            let mut command = crate::cargo(&session.root);
            command.args(arguments);
            process::run(Job { command, log: None, limit: CARGO_LIMIT })?.success()
        });
    }

    fn test_stages(
        &mut self,
        packages: &[&str],
        peers: impl FnOnce() -> Result<Vec<(OsString, OsString)>, String>,
    ) {
        if let Some(peer) = self.stage("peers", |_| peers()) {
            self.variables = peer;
        }
        let Some(build) = self.stage("build", |s| Build::make(&s.root, packages)) else {
            return;
        };
        let here = Round { build: &build, user: None };
        build.packages().into_iter().for_each(|package| self.tests(package, here));
        if packages.is_empty() {
            self.doc_tests();
        }
        let user = self.ordinary_tests(&build);
        if let Some(world) = user {
            self.stage("nothing left behind by the ordinary user", |_| world.close());
        }
        self.stage("nothing left behind", |s| left::check(&s.temporary));
    }

    /// The tests of the crates that meet the kernel, once more as an ordinary user, who is handed
    /// on. Nobody if we are one, or if nothing needs it.
    fn ordinary_tests(&mut self, build: &Build) -> Option<World> {
        let all = build.packages().into_iter();
        let packages: Vec<_> = all.filter(|p| MEET_THE_KERNEL.contains(p)).collect();
        if packages.is_empty() || !needs::is_root() {
            return None;
        }
        let world = self.stage("an ordinary user", |s| World::make(&s.root, &s.target, build))?;
        let round = Round { build, user: Some(&world) };
        packages.into_iter().for_each(|package| self.tests(package, round));
        Some(world)
    }

    /// All test executables of one package.
    fn tests(&mut self, package: &str, round: Round<'_>) {
        let name = format!("{package}{}", round.label());
        println!("\n== {name}");
        let mut tally = Tally::default();
        for binary in round.build.of(package) {
            tally = tally.plus(self.binary(binary, round));
        }
        self.stages.push(Stage { name, tally: tally.of_tests() });
    }

    fn binary(&self, binary: &Binary, round: Round<'_>) -> Tally {
        let log = self.log(&format!("{}{}", binary.slug(), round.label().replace(' ', "-")));
        let mut variables = self.variables.clone();
        variables.extend(round.build.variables(binary));
        variables.push(("INSTA_WORKSPACE_ROOT".into(), self.root.clone().into()));
        let command = match round.user {
            Some(world) => world.command(binary, &variables),
            None => binary.command(&self.temporary, &variables),
        };
        let count = if binary.program.is_some() { tally::of_script } else { tally::of_output };
        let job = Job { command, log: Some(log), limit: BINARY_LIMIT };
        report(&binary.target, job, count)
    }

    fn doc_tests(&mut self) {
        println!("\n== doc tests");
        let mut command = crate::cargo(&self.root);
        command.args(["test", "--doc"]).args(build::chosen(&[]));
        let log = Some(self.log("doc"));
        let job = Job { command, log, limit: CARGO_LIMIT };
        let tally = report("doc", job, tally::of_output);
        if tally != Tally::default() {
            self.stages.push(Stage { name: "doc tests".to_owned(), tally });
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.target.join("xtask-test").join(format!("{name}.log"))
    }

    /// Prints the summary and the closing line, and takes away the temporary folder.
    fn close(self) -> bool {
        println!("\n== summary (logs: {})", self.target.join("xtask-test").display());
        let mut total = Tally::default();
        for stage in &self.stages {
            println!("{:<5} {:<46} {}", stage.tally.word(), stage.name, stage.tally);
            total = total.plus(stage.tally);
        }
        if let Err(error) = left::remove_folder(&self.temporary) {
            println!("FAIL  cannot remove {}: {error}", self.temporary.display());
            total = total.plus(Tally::of_stage(false));
        }
        println!("{total}");
        total.failed == 0
    }
}

/// Runs one test executable (or `cargo test`), prints its line, and all it said if it failed.
fn report(name: &str, job: Job, count: fn(&str, bool) -> Tally) -> Tally {
    let started = Instant::now();
    let outcome = process::run(job).unwrap_or_else(Outcome::not_started);
    let tally = count(&outcome.output, outcome.status_ok());
    if tally.failed > 0 {
        println!("{}", outcome.output);
    }
    if let Err(why) = outcome.success() {
        println!("      {name}: {why}");
    }
    println!("{:<5} {name:<34} {tally}  {:.1} s", tally.word(), started.elapsed().as_secs_f64());
    tally
}
