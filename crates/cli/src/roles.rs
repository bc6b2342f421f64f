//! The roles this binary plays for itself: started by re-exec, recognised before anything else is
//! looked at, so that they start fast and no flag can reach them.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

/// `__owner HOME`: the one process of a home that decides and writes.
pub(crate) const OWNER: &str = "__owner";
/// `__load PLAN`: the load of `bench gate`, also inside its sandbox.
const LOAD: &str = "__load";
/// `__networks COUNT`: makes networks as sandboxes get them, for `bench gate`.
const NETWORKS: &str = "__networks";

/// Plays the role that the first argument names, and gives its exit status; `None` when this is an
/// ordinary command.
pub(crate) fn play(arguments: &[OsString]) -> Option<u8> {
    let role = arguments.get(1)?.to_str()?;
    let rest = arguments.get(2);
    match role {
        OWNER => Some(owner(rest)),
        LOAD => Some(load(rest)),
        NETWORKS => Some(networks(rest)),
        sandbox::SPAWNER_ARG => {
            let number = rest.and_then(|text| text.to_str()).and_then(|text| text.parse().ok());
            sandbox::spawner_main(number.unwrap_or(0))
        }
        gate::GATE_ARGUMENT => Some(gate_role()),
        tools::host::TOOLHOST_ARGUMENT => {
            Some(u8::try_from(tools::host::toolhost_main()).unwrap_or(1))
        }
        image::WORKER_ARG => Some(u8::from(image::worker_main().is_err())),
        _ => None,
    }
}

fn owner(home: Option<&OsString>) -> u8 {
    let Some(home) = home else { return 2 };
    let exe = crate::session::this_program();
    u8::try_from(runtime::owner_main(Path::new(home), exe)).unwrap_or(1)
}

fn load(plan: Option<&OsString>) -> u8 {
    let Some(plan) = plan else { return 2 };
    match crate::commands::perform_load(Path::new(plan)) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "load: {error}");
            1
        }
    }
}

/// A line each: all of one, and its bare making.
fn networks(count: Option<&OsString>) -> u8 {
    let count = count.and_then(|text| text.to_str()).and_then(|text| text.parse().ok());
    let Some(count) = count else { return 2 };
    let mut out = std::io::stdout();
    match sandbox::measure_networks(count) {
        Ok(times) => {
            let lines = times.iter().map(|time| format!("{} {}\n", time.whole, time.bare));
            u8::from(out.write_all(lines.collect::<String>().as_bytes()).is_err())
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "networks: {error}");
            1
        }
    }
}

fn gate_role() -> u8 {
    match gate::gate_main() {
        Ok(()) => 0,
        Err(error) => {
            // The owner's log: nobody's terminal.
            let _ = writeln!(std::io::stderr(), "gate: {error}");
            1
        }
    }
}
