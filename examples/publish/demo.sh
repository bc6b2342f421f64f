#!/bin/sh
# Publishes the report twice over, each time through two crashes of the owner, and shows that it came
# out exactly once. Exit 0 if so, 1 if not.
#
# In both rounds the owner is killed with SIGKILL while the approval waits, and again while the tool
# runs: in the first round just before the tool's effect, in the second just after it. The tool's own
# files (control/hold-*, control/at-*) fix the moment; nothing depends on timing.
#
# Works on copies in a temporary directory. BEDPLATE names the binary, default `bedplate`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
bedplate=${BEDPLATE:-bedplate}
WAIT_STEPS_MAX=1200   # of 0.05 s each

work=$(mktemp -d)
dir='' home='' log='' waiting=''

cleanup() {
    if [ -n "$waiting" ]; then kill "$waiting" 2>/dev/null || true; fi
    for pidfile in "$work"/*-home/owner.pid; do
        if [ -f "$pidfile" ]; then kill "$(cat "$pidfile")" 2>/dev/null || true; fi
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

say() { printf '%s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    if [ -f "$log" ]; then tail -n 20 "$log" >&2; fi
    exit 1
}
bp() { "$bedplate" --home "$home" "$@"; }

# field FILE KEY...: one value of a JSON document, keys and list positions in turn.
field() {
    python3 -c '
import json, sys
value = json.load(open(sys.argv[1], encoding="utf-8"))
for key in sys.argv[2:]:
    value = value[int(key) if isinstance(value, list) else key]
print(value)' "$@"
}

# count FILE: its lines, 0 if there is none.
count() { if [ -f "$1" ]; then wc -l <"$1" | tr -d ' '; else echo 0; fi; }

equal() { [ "$2" = "$3" ] || fail "$1: got '$2', wanted '$3'"; }

wait_for_file() {
    steps=0
    until [ -e "$1" ]; do
        steps=$((steps + 1))
        [ "$steps" -le "$WAIT_STEPS_MAX" ] || fail "waited too long for $1"
        sleep 0.05
    done
}

# Gone or a zombie: both are dead.
alive() {
    [ -r "/proc/$1/stat" ] || return 1
    case $(sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null || true) in '' | Z*) return 1 ;; esac
}

# Status 1 if there is no owner to kill.
kill_owner() {
    [ -f "$home/owner.pid" ] || return 1
    owner=$(cat "$home/owner.pid")
    kill -9 "$owner" 2>/dev/null || return 1
    steps=0
    while alive "$owner"; do
        steps=$((steps + 1))
        [ "$steps" -le "$WAIT_STEPS_MAX" ] || fail "owner $owner survived SIGKILL"
        sleep 0.05
    done
    say "  killed owner $owner with SIGKILL"
}

# round POINT ATTEMPTS: crash at POINT (before or after the effect); ATTEMPTS calls of the tool in all.
round() {
    point=$1 attempts=$2
    dir="$work/$point" home="$work/$point-home"
    mkdir "$dir"
    for part in bedplate.toml turns.toml draft tools; do cp -R "$here/$part" "$dir/"; done
    mkdir "$dir/control"
    : >"$dir/control/hold-$point"
    posts="$dir/site/posts.jsonl" out="$work/$point.json" log="$work/$point.log"

    say "run: goes on until only a person can move it"
    status=0
    bp run "$dir" --json </dev/null >"$out" 2>"$log" || status=$?
    equal "exit status of run" "$status" 4
    run=$(field "$out" run)

    say "crash while the approval waits"
    kill_owner || say "  (the owner had already left)"

    bp approvals --json >"$out"
    id=$(field "$out" approvals 0 id)
    equal "what is asked" "$(field "$out" approvals 0 resource)" publish_report
    equal "posts before the approval" "$(count "$posts")" 0
    say "approve $id: the tool starts, and stops just $point its effect"
    bp approve "$id" >/dev/null 2>>"$log"
    wait_for_file "$dir/control/at-$point"

    say "crash while the tool runs"
    kill_owner || fail "no owner runs the tool"
    rm "$dir/control/at-$point"

    say "resume: the probe says whether it happened"
    bp resume "$run" --json </dev/null >"$out" 2>>"$log" &
    waiting=$!
    if [ "$point" = before ]; then
        # The second attempt reached the same point. Should the first one still be alive, both go on
        # from here and the count below tells.
        wait_for_file "$dir/control/at-$point"
        rm "$dir/control/hold-$point"
    fi
    status=0
    wait "$waiting" || status=$?
    waiting=''
    equal "exit status of resume" "$status" 0
    equal "status" "$(field "$out" status)" "done"
    equal "calls of the tool" "$(count "$dir/site/attempts.log")" "$attempts"
    equal "different keys" "$(sort -u "$dir/site/attempts.log" | wc -l | tr -d ' ')" 1
    equal "posts" "$(count "$posts")" 1

    say "approve once more: refused, nothing happens"
    if bp approve "$id" >/dev/null 2>>"$log"; then fail "an approval was used twice"; fi
    equal "posts" "$(count "$posts")" 1
    bp verify "$run" >/dev/null || fail "the log does not verify"
    say "published exactly once, calls of the tool: $attempts, log verified"
}

command -v "$bedplate" >/dev/null 2>&1 || fail "no bedplate found: set BEDPLATE to the binary"

say "1. crash just before the effect"
round before 2
say ""
say "2. crash just after the effect"
round after 1
