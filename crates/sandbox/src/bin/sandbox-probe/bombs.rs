//! Using more than there is. Each stops by itself well before it would hurt the host.

use super::{Aim, Outcome, Probe, aim, both, checked, io};
use std::fs;
use std::io::Write;

const MIB: usize = 1 << 20;

pub(super) const PROBES: &[Probe] = &[
    both("fork-bomb", forks),
    both("memory-bomb", memory),
    both("memory-bomb-of-many", |a| {
        let share = limit(a, "memory") / 4;
        let mut children = Vec::new();
        for _ in 0..8 {
            // SAFETY: this program has one thread.
            match unsafe { libc::fork() } {
                0 => {
                    let kept = touched(share);
                    // SAFETY: waits until it is killed, or ends.
                    unsafe {
                        libc::sleep(2);
                        libc::_exit(i32::from(kept != share));
                    }
                }
                pid => children.push(pid),
            }
        }
        let mut survived = 0;
        for pid in children {
            let mut status = -1;
            // SAFETY: status outlives the call.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            survived += usize::from(status == 0);
        }
        if survived == 8 {
            Ok("all eight lived".to_owned())
        } else {
            Err(format!("{survived} lived"))
        }
    }),
    both("disk-bomb", |a| {
        let total = limit(a, "disk") * 4;
        let result = fill(".", total, 4 * MIB).map(|_| {
            // The limit is sampled: give it time to be seen.
            // SAFETY: no memory is passed.
            unsafe { libc::sleep(3) };
            format!("{total} bytes")
        });
        clean(".");
        result
    }),
    both("file-size-bomb", |a| {
        let total = limit(a, "disk") * 2;
        let result = fill(".", total, total);
        clean(".");
        result
    }),
    both("scratch-bomb", |a| {
        let dir = aim(a, "scratch_dir");
        let result = fill(dir, limit(a, "scratch") * 2, 4 * MIB);
        clean(dir);
        result
    }),
    both("shared-memory-bomb", |a| {
        let result = fill("/dev/shm", limit(a, "scratch") * 2, 4 * MIB);
        clean("/dev/shm");
        result
    }),
    both("raise-process-limit", |_| {
        // SAFETY: limit outlives the calls.
        unsafe {
            let mut limit: libc::rlimit = std::mem::zeroed();
            libc::getrlimit(libc::RLIMIT_NPROC, &raw mut limit);
            if limit.rlim_max > 4096 {
                return Ok(limit.rlim_max.to_string());
            }
            limit.rlim_max = 1 << 20;
            checked(libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit).into())
        }
    }),
];

fn limit(a: &Aim, key: &str) -> usize {
    aim(a, key).parse().unwrap_or(0)
}

/// Starts twice as many children as there may be processes, then ends them.
fn forks(a: &Aim) -> Outcome {
    let wanted = limit(a, "processes") * 2;
    let mut children = Vec::new();
    while children.len() < wanted {
        // SAFETY: this program has one thread; the child waits to be killed.
        match unsafe { libc::fork() } {
            0 => unsafe {
                // SAFETY: no memory is passed.
                libc::pause();
                libc::_exit(0)
            },
            pid if pid > 0 => children.push(pid),
            _ => break,
        }
    }
    let count = children.len();
    for pid in children {
        // SAFETY: our own children.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    }
    if count == wanted {
        Ok(format!("{count} children"))
    } else {
        Err(format!("{count} of {wanted}"))
    }
}

/// Touches so much anonymous memory; says how much it got.
fn touched(bytes: usize) -> usize {
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new private mapping of our own, written within its length.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0);
        if at == libc::MAP_FAILED {
            return 0;
        }
        for offset in (0..bytes).step_by(4096) {
            at.cast::<u8>().add(offset).write_volatile(1);
        }
    }
    bytes
}

fn memory(a: &Aim) -> Outcome {
    let wanted = limit(a, "memory") * 2;
    match touched(wanted) {
        0 => Err("no memory".to_owned()),
        bytes => Ok(format!("{bytes} bytes")),
    }
}

/// Writes `total` bytes below `dir` in files of `each`.
fn fill(dir: &str, total: usize, each: usize) -> Outcome {
    let block = vec![1; MIB];
    for number in 0..total.div_ceil(each) {
        let mut file = io(fs::File::create(format!("{dir}/bomb{number}")))?;
        for _ in 0..each / MIB {
            io(file.write_all(&block))?;
        }
    }
    Ok(format!("{total} bytes"))
}

fn clean(dir: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("bomb") {
            let _ = fs::remove_file(entry.path());
        }
    }
}
