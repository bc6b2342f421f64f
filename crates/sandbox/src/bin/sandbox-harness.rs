//! What the tests re-exec: the same entries the `bedplate` binary has.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let number = |text: &str| text.parse().ok();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, sandbox::SPAWNER_ARG, fd] => match number(fd) {
            Some(fd) => sandbox::spawner_main(fd),
            None => ExitCode::from(2),
        },
        _ => ExitCode::from(2),
    }
}
