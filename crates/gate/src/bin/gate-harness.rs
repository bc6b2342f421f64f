//! A program that is nothing but the gate process, for tests. It is not shipped.

fn main() -> std::process::ExitCode {
    match gate::gate_main() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(_) => std::process::ExitCode::FAILURE,
    }
}
