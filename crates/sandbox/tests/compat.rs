//! What programs people use in a sandbox need from it.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use sandbox::layers::LayerStore;
use sandbox::*;
use std::path::Path;

/// Asks the sandbox's own server until it answers.
const FETCH: &str = "
import time, urllib.request as u
for i in range(400):
    try:
        print(u.urlopen('http://127.0.0.1:8123/g').status)
        break
    except OSError:
        time.sleep(0.05)
";
const HARNESS: &str = env!("CARGO_BIN_EXE_sandbox-harness");

#[tokio::test]
async fn common_tools_work() {
    let home = tempfile::tempdir().unwrap();
    let store = LayerStore::open(home.path()).unwrap();
    let spawner = Spawner::start(Path::new(HARNESS), SpawnerConfig::default()).await.unwrap();
    let upper = store.begin(&store.empty().unwrap()).unwrap();
    let id = spawner.create(CreateSpec::new(upper.overlay())).await.unwrap().id;
    let cases = [
        ("echo x > /dev/stderr; echo y > /dev/stdout; echo z > /dev/null", "y\nx\n"),
        ("echo a | tee >(cat >&2) >/dev/null; wait", ""),
        ("mktemp -d | cut -c1-9", "/tmp/tmp.\n"),
        (
            "python3 -c 'import multiprocessing as m; print(m.Pool(2).map(abs, [-1, -2]))'",
            "[1, 2]\n",
        ),
        (
            "python3 -c 'import socket; print(socket.getaddrinfo(\"localhost\", 80)[0][4][1])'",
            "80\n",
        ),
        (
            "python3 -c 'import ssl; print(ssl.create_default_context().cert_store_stats()[\"x509\"] > 0)'",
            "True\n",
        ),
        ("python3 -c 'import subprocess as s; print(s.run([\"true\"]).returncode)'", "0\n"),
        (
            "python3 -c 'import os; print(len(os.sched_getaffinity(0)) > 0, os.cpu_count() > 0)'",
            "True True\n",
        ),
        ("python3 -c 'import mmap; m = mmap.mmap(-1, 4096); m[0] = 1; print(m[0])'", "1\n"),
        ("python3 -m venv v && v/bin/python -c 'import sys; print(sys.prefix)'", "/workspace/v\n"),
        ("ln -s v w; readlink w; find w/ -maxdepth 0 | wc -l", "v\n1\n"),
        ("mkdir d && mv d e && touch e/f && mv e/f g && rm -r e && ls g", "g\n"),
        ("(python3 -m http.server 8123 >/dev/null 2>&1 &) ; python3 -c \"$FETCH\"", "200\n"),
        ("ps -e -o comm= 2>/dev/null | sort -u | head -3 | wc -l", "3\n"),
        ("ulimit -c; id -un; whoami; getent hosts localhost | wc -l", "0\nagent\nagent\n1\n"),
        ("date -u -d @0 +%Y; TZ=Europe/Berlin date -d @0 +%H", "1970\n01\n"),
        ("flock /tmp/lock true && echo locked", "locked\n"),
        ("timeout 0.1 sleep 5; echo $?", "124\n"),
    ];
    for (command, expected) in cases {
        let spec = ExecSpec {
            env: vec![("FETCH".to_owned(), FETCH.to_owned())],
            ..ExecSpec::new(["/bin/bash", "-c", command])
        };
        let done = spawner.exec(&id, spec).await.unwrap().finish().await.unwrap();
        let text = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        if expected.is_empty() {
            assert_eq!(done.exit.ended, Ended::Code(0), "{command}: {text}");
        } else {
            assert_eq!(text, expected, "{command}");
        }
    }
    spawner.close().await;
}

/// Tools that are not on every machine are tried where they are.
#[tokio::test]
async fn git_and_a_compiler_work_where_they_are() {
    let home = tempfile::tempdir().unwrap();
    let store = LayerStore::open(home.path()).unwrap();
    let spawner = Spawner::start(Path::new(HARNESS), SpawnerConfig::default()).await.unwrap();
    let upper = store.begin(&store.empty().unwrap()).unwrap();
    let id = spawner.create(CreateSpec::new(upper.overlay())).await.unwrap().id;
    let git = "git init -q r && cd r && echo a > f && git add f && git -c user.name=a -c user.email=a@b \
               commit -qm one && git checkout -qb two && git log --oneline | wc -l";
    let compiler = "echo 'int main(){return 7;}' > m.c && gcc -o m m.c; ./m; echo $?";
    for (tool, command, expected) in
        [("/usr/bin/git", git, "1\n"), ("/usr/bin/gcc", compiler, "7\n")]
    {
        if Path::new(tool).exists() {
            let done =
                spawner.exec(&id, ExecSpec::shell(command)).await.unwrap().finish().await.unwrap();
            let text =
                String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
            assert_eq!(text, expected, "{command}");
        }
    }
    spawner.close().await;
}
