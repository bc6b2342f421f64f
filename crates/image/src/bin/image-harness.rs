//! What the tests re-exec: a worker, a pull that can be killed, and a spawner to see images from
//! inside. It is not shipped.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, sandbox::SPAWNER_ARG, fd] => match fd.parse() {
            Ok(fd) => sandbox::spawner_main(fd),
            Err(_) => ExitCode::from(2),
        },
        [_, image::WORKER_ARG] => match image::worker_main() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        [_, "pull", home, source] => pull(Path::new(home), source),
        _ => ExitCode::from(2),
    }
}

fn pull(home: &Path, source: &str) -> ExitCode {
    let exe = std::env::current_exe().expect("a running program has a path");
    let source = source.parse().expect("a reference");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    match runtime.block_on(image::Images::new(home, exe).pull(&source, Path::new("/"))) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
