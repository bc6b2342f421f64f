//! Files of the host, ways around the workspace, and the path rules.

use super::{Aim, Outcome, Probe, aim, both, checked, if_there, in_child, io, root, with_own_root};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;

pub(super) const PROBES: &[Probe] = &[
    both("read-host-file", |a| read_secret(aim(a, "secret"), a)),
    both("read-host-file-by-dots", |a| {
        read_secret(&format!("{}{}", "../".repeat(30), aim(a, "secret")), a)
    }),
    both("read-host-file-by-symlink", |a| {
        let _ = fs::remove_file("link");
        io(symlink(aim(a, "secret"), "link"))?;
        let found = read_secret("link", a);
        let _ = fs::remove_file("link");
        found
    }),
    both("hard-link-host-file", |a| {
        let _ = fs::remove_file("hard");
        io(fs::hard_link(aim(a, "secret"), "hard"))?;
        let found = read_secret("hard", a);
        let _ = fs::remove_file("hard");
        found
    }),
    both("write-host-directory", |a| {
        let path = format!("{}/written", aim(a, "outside"));
        io(fs::write(&path, "x"))?;
        io(fs::remove_file(&path))?;
        Ok(path)
    }),
    root("read-shadow", |_| holds("/etc/shadow", "root:")),
    both("read-host-accounts", |_| holds("/etc/passwd", "daemon:")),
    root("list-root-home", |_| other_than("/root", &[])),
    both("list-homes", |_| other_than("/home", &["agent"])),
    both("list-bedplate-home", |a| listed(aim(a, "home"))),
    both("list-host-tmp", |a| {
        let name = aim(a, "marker");
        names("/tmp")?.into_iter().find(|n| n == name).ok_or_else(|| "not there".to_owned())
    }),
    both("read-host-shared-memory", |a| io(fs::read_to_string(aim(a, "shm_file")))),
    if_there("list-host-run", |_| other_than("/run", &["bedplate"])),
    if_there("list-host-var", |_| listed("/var/lib")),
    if_there("read-boot", |_| other_than("/boot", &[])),
    root("write-usr", |_| create("/usr/.bedplate-probe")),
    root("write-etc", |_| create("/etc/.bedplate-probe")),
    root("write-root", |_| create("/.bedplate-probe")),
    if_there("usr-mounted-writable", |_| {
        let usr = CString::new("/usr").map_err(|e| e.to_string())?;
        // SAFETY: plain integers; all zero is valid, and both pointers outlive the call.
        let flags = unsafe {
            let mut fs: libc::statvfs = std::mem::zeroed();
            libc::statvfs(usr.as_ptr(), &raw mut fs);
            fs.f_flag
        };
        if flags & libc::ST_RDONLY == 0 {
            Ok("writable".to_owned())
        } else {
            Err("read-only".to_owned())
        }
    }),
    both("chroot", |_| {
        in_child(|| {
            with_own_root()?;
            // SAFETY: the path is a C string.
            checked(unsafe { libc::chroot(c".".as_ptr()) }.into())
        })
    }),
    both("mount-tmpfs", |_| {
        in_child(|| {
            with_own_root()?;
            // SAFETY: no memory is passed.
            checked(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())?;
            let (none, kind) = (c"none".as_ptr(), c"tmpfs".as_ptr());
            // SAFETY: all pointers are C strings or null.
            checked(
                unsafe { libc::mount(none, c"/tmp".as_ptr(), kind, 0, std::ptr::null()) }.into(),
            )
        })
    }),
    both("mount-by-descriptor", |_| {
        in_child(|| {
            with_own_root()?;
            // SAFETY: no memory is passed.
            checked(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())?;
            // SAFETY: the name is a C string.
            checked(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0) })
        })
    }),
    root("make-device-node", |_| {
        let _ = fs::remove_file("node");
        let device = libc::makedev(1, 1);
        // SAFETY: the path is a C string.
        let made =
            checked(unsafe { libc::mknod(c"node".as_ptr(), libc::S_IFCHR | 0o600, device) }.into());
        let _ = fs::remove_file("node");
        made
    }),
    if_there("open-disk", |_| {
        let disks = names("/dev")?.into_iter();
        let mut disks =
            disks.filter(|n| ["vd", "sd", "nvme", "xvd"].iter().any(|p| n.starts_with(p)));
        disks
            .find(|name| fs::File::open(format!("/dev/{name}")).is_ok())
            .ok_or_else(|| "no disk could be opened".to_owned())
    }),
    if_there("open-memory-device", |_| opened("/dev/mem")),
    if_there("open-kvm", |_| opened("/dev/kvm")),
    if_there("open-fuse", |_| opened("/dev/fuse")),
    if_there("open-kernel-log", |_| opened("/dev/kmsg")),
    both("read-masked-file", |_| io(fs::read_to_string("../masked/file"))),
    both("list-masked-directory", |_| listed("../masked")),
    both("move-away-the-mask", |_| {
        io(fs::rename("../deep", "../moved"))?;
        let read = io(fs::read_to_string("../moved/inner/file"));
        let _ = fs::rename("../moved", "../deep");
        read
    }),
    both("read-masked-deep-file", |_| io(fs::read_to_string("../deep/inner/file"))),
    both("write-locked-file", |_| {
        io(fs::write("../locked/file", "x")).map(|()| "written".to_owned())
    }),
    both("write-outside-allowed-prefix", |_| create("../closed/new")),
    both("truncate-outside-allowed-prefix", |_| {
        // SAFETY: the path is a C string.
        checked(unsafe { libc::truncate(c"../closed/file".as_ptr(), 0) }.into())
    }),
    both("rename-out-of-allowed-prefix", |_| {
        io(fs::write("mine", "x"))?;
        let moved = io(fs::rename("mine", "../closed/mine")).map(|()| "moved".to_owned());
        let _ = fs::remove_file("../closed/mine");
        moved
    }),
];

fn read_secret(path: &str, a: &Aim) -> Outcome {
    let text = io(fs::read_to_string(path))?;
    if text == aim(a, "witness") { Ok(text) } else { Err("another file".to_owned()) }
}

fn holds(path: &str, text: &str) -> Outcome {
    let found = io(fs::read_to_string(path))?;
    if found.contains(text) { Ok(text.to_owned()) } else { Err("another file".to_owned()) }
}

fn names(path: &str) -> Result<Vec<String>, String> {
    let list = io(fs::read_dir(path))?.flatten();
    Ok(list.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn listed(path: &str) -> Outcome {
    names(path).map(|names| format!("{} entries", names.len()))
}

fn other_than(path: &str, known: &[&str]) -> Outcome {
    let other = names(path)?.into_iter().find(|name| !known.contains(&name.as_str()));
    other.ok_or_else(|| "only what belongs there".to_owned())
}

fn create(path: &str) -> Outcome {
    io(fs::write(path, "x"))?;
    let _ = fs::remove_file(path);
    Ok(path.to_owned())
}

pub(super) fn opened(path: &str) -> Outcome {
    io(fs::File::open(path)).map(|_| path.to_owned())
}
