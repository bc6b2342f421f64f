//! What this machine can contain: each probe tries the thing itself and says what to change.

use crate::layers::{LayerStore, remove_tree};
use crate::spec::{CreateSpec, Ended, ExecSpec, Facts, Strength};
use crate::{SandboxError, Spawner, SpawnerConfig, confine, sys};
use std::fs;
use std::path::Path;
use types::Coded;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What was tried.
    pub name: &'static str,
    /// Whether it works.
    pub ok: bool,
    /// Whether bedplate refuses to run without it.
    pub required: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty when there is nothing to do.
    pub recipe: String,
}

const APPARMOR_RECIPE: &str = "Write /etc/apparmor.d/bedplate:\n  abi <abi/4.0>,\n  include \
    <tunables/global>\n  profile bedplate EXE flags=(unconfined) { userns, }\nthen: sudo \
    apparmor_parser -r /etc/apparmor.d/bedplate";
const SYSCTL_RECIPE: &str = "sudo sysctl -w user.max_user_namespaces=15000 (and, where it exists, \
    kernel.unprivileged_userns_clone=1); to keep it: a file in /etc/sysctl.d";
const CONTAINER_RECIPE: &str = "In Docker: run with --privileged, or as an ordinary user with \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt \
    systempaths=unconfined; and mount a volume for --home, because an overlay cannot be the upper \
    of another";
const DELEGATE_RECIPE: &str = "systemd-run --user --scope -p Delegate=yes bedplate ...";
const LANDLOCK_RECIPE: &str =
    "Use Linux 5.19 or newer with Landlock in the `lsm=` boot parameter (6.2 for `write` rules)";
const KVM_RECIPE: &str = "Only the vm driver needs it. On macOS run bedplate in a Linux VM: \
    `limactl start template://debian-13 && limactl shell debian-13`";

/// Tries everything. `exe` is re-exec'd as the spawner; `home` is where layers would be, and is
/// left as it was. Must be called within a tokio runtime.
pub async fn probe(exe: &Path, home: &Path) -> Vec<Probe> {
    let built = build(exe, home).await;
    vec![
        namespaces(exe, &built),
        overlay(&built),
        landlock(),
        seccomp(),
        whole(&built),
        limits(&built),
        container(),
        kvm(),
    ]
}

/// A sandbox, from the first layer to the last process.
async fn build(exe: &Path, home: &Path) -> Result<Facts, SandboxError> {
    let spawner = Spawner::start(exe, SpawnerConfig::default()).await?;
    let result = build_with(&spawner, home).await;
    spawner.close().await;
    result
}

async fn build_with(spawner: &Spawner, home: &Path) -> Result<Facts, SandboxError> {
    let fail = |error: std::io::Error| SandboxError::Store {
        action: "create".to_owned(),
        path: home.to_owned(),
        why: error.to_string(),
    };
    let existed = home.exists();
    fs::create_dir_all(home).map_err(fail)?;
    let trial = home.join(format!(".probe-{}", std::process::id()));
    let outcome = async {
        let store = LayerStore::open(&trial)?;
        let upper = store.begin(&store.empty()?)?;
        let made = spawner.create(CreateSpec::new(upper.overlay())).await?;
        let ran = spawner.exec(&made.id, ExecSpec::shell("echo > f && rm f")).await?;
        let done = ran.finish().await?;
        spawner.destroy(&made.id).await?;
        match done.exit.ended {
            Ended::Code(0) => Ok(made.facts),
            other => Err(SandboxError::setup("running a program", format!("{other:?}"))),
        }
    }
    .await;
    let _ = remove_tree(&trial);
    if !existed {
        let _ = fs::remove_dir(home);
    }
    outcome
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn namespaces(exe: &Path, built: &Result<Facts, SandboxError>) -> Probe {
    let apparmor = read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    let restricted = apparmor.as_deref() == Some("1");
    let most = read("/proc/sys/user/max_user_namespaces").unwrap_or_else(|| "unknown".to_owned());
    let failed = match built {
        Err(error @ SandboxError::UserNamespaces { .. }) => Some(error.to_string()),
        _ => None,
    };
    let recipe = match (&failed, restricted) {
        (None, _) => String::new(),
        (Some(_), true) => APPARMOR_RECIPE.replace("EXE", &exe.display().to_string()),
        (Some(_), false) if in_container() => CONTAINER_RECIPE.to_owned(),
        (Some(_), false) => SYSCTL_RECIPE.to_owned(),
    };
    Probe {
        name: "user namespaces",
        ok: failed.is_none(),
        required: true,
        detail: failed.unwrap_or_else(|| {
            format!(
                "allowed (max {most}{})",
                if restricted { ", AppArmor profile in force" } else { "" }
            )
        }),
        recipe,
    }
}

fn overlay(built: &Result<Facts, SandboxError>) -> Probe {
    let failed = match built {
        Err(error @ (SandboxError::Overlay { .. } | SandboxError::Store { .. })) => {
            Some((error.to_string(), error.next()))
        }
        _ => None,
    };
    let style = match built {
        Ok(facts) if facts.redirect_dir => "mounts at the home, directories can be renamed",
        Ok(_) => "mounts at the home; renaming a directory of a sealed layer copies it",
        Err(_) => "was not reached",
    };
    Probe {
        name: "overlay file system",
        ok: built.is_ok(),
        required: true,
        detail: failed.as_ref().map_or(style, |(what, _)| what).to_owned(),
        recipe: failed.map(|(_, next)| next).unwrap_or_default(),
    }
}

fn landlock() -> Probe {
    let abi = sys::landlock_abi();
    let ok = abi.as_ref().is_ok_and(|abi| *abi >= confine::LANDLOCK_ABI_MIN);
    Probe {
        name: "Landlock",
        ok,
        required: true,
        detail: match abi {
            Ok(abi) => format!("ABI {abi}"),
            Err(error) => error.to_string(),
        },
        recipe: if ok { String::new() } else { LANDLOCK_RECIPE.to_owned() },
    }
}

fn seccomp() -> Probe {
    let actions = read("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let ok = actions.split(' ').any(|action| action == "errno");
    Probe {
        name: "seccomp filters",
        ok,
        required: true,
        detail: if ok { "available".to_owned() } else { format!("actions: '{actions}'") },
        recipe: if ok {
            String::new()
        } else {
            "Use a kernel with CONFIG_SECCOMP_FILTER".to_owned()
        },
    }
}

fn whole(built: &Result<Facts, SandboxError>) -> Probe {
    Probe {
        name: "a whole sandbox",
        ok: built.is_ok(),
        required: true,
        detail: match built {
            Ok(facts) => format!("built, used and removed; host uid inside: {}", facts.host_uid),
            Err(error) => format!("{}: {error}", error.code()),
        },
        recipe: built.as_ref().err().map(Coded::next).unwrap_or_default(),
    }
}

fn limits(built: &Result<Facts, SandboxError>) -> Probe {
    let (ok, detail) = match built.as_ref().map(|facts| facts.limits) {
        Ok(Strength::KernelV2) => (true, "kernel: cgroup v2"),
        Ok(Strength::KernelV1) => (true, "kernel: cgroup v1"),
        Ok(Strength::Watched) => (false, "watched: no cgroup is ours; CPU is not limited"),
        Err(_) => (false, "unknown: no sandbox could be built"),
    };
    Probe {
        name: "limits by the kernel",
        ok,
        required: false,
        detail: detail.to_owned(),
        recipe: if ok { String::new() } else { DELEGATE_RECIPE.to_owned() },
    }
}

fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists())
        || read("/proc/1/environ").is_some_and(|text| text.contains("container="))
}

fn container() -> Probe {
    let inside = in_container();
    Probe {
        name: "not in a container",
        ok: !inside,
        required: false,
        detail: if inside { "this looks like a container" } else { "no sign of one" }.to_owned(),
        recipe: if inside { CONTAINER_RECIPE.to_owned() } else { String::new() },
    }
}

fn kvm() -> Probe {
    let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
    let version = opened.and_then(|file| sys::kvm_version(std::os::fd::AsFd::as_fd(&file)));
    let hardware = read("/proc/cpuinfo").is_some_and(|text| {
        let mut flags = text.split_whitespace();
        flags.any(|flag| flag == "vmx" || flag == "svm")
    });
    let ok = version.is_ok() && (hardware || cfg!(target_arch = "aarch64"));
    Probe {
        name: "virtual machines",
        ok,
        required: false,
        detail: match version {
            Ok(version) if ok => format!("KVM API {version}"),
            Ok(version) => format!("KVM API {version}, but no CPU virtualization (nested, or PVM)"),
            Err(error) => format!("/dev/kvm: {error}"),
        },
        recipe: if ok { String::new() } else { KVM_RECIPE.to_owned() },
    }
}
