"""Tries two fixes of a program side by side, in forks of one sandbox, and keeps the better one.

    bedplate serve &
    python3 try_fixes.py DIRECTORY
"""

import sys

from bedplate import Client, Sandbox

PROGRAM = b"print(sum(range(1, 10)))\n"
CHECK = b"import subprocess, sys\nsaid = subprocess.run([sys.executable, 'sum.py'], capture_output=True)\n"
CHECK += b"sys.exit(said.stdout != b'55\\n')\n"
FIXES = {"one more": b"print(sum(range(1, 11)))\n", "one less": b"print(sum(range(0, 10)))\n"}


def passes(sandbox: Sandbox) -> bool:
    return sandbox.run(["python3", "check.py"], timeout_s=60).exit == 0


def main(workspace: str) -> int:
    # Nothing of the directory changes, and nothing leaves the sandbox.
    sandbox = Client().create_sandbox(workspace=workspace)
    sandbox.write("sum.py", PROGRAM)
    sandbox.write("check.py", CHECK)
    with sandbox.exec("python3 sum.py; echo done >&2") as begun:
        for piece in begun:
            print(f"{piece.stream}: {piece.data.decode().strip()}", flush=True)
    print(f"passes: {passes(sandbox)}")
    start = sandbox.snapshot()
    forks = dict(zip(FIXES, sandbox.fork(len(FIXES), at=start)))
    for name, fork in forks.items():
        fork.write("sum.py", FIXES[name])
        if passes(fork):
            print(f"{name}: passes")
            for change in fork.diff(since=start, text=True):
                print(f"{change.kind} {change.path}\n{change.text}", end="")
            sandbox.write("sum.py", fork.read("sum.py"))
    print(f"passes: {passes(sandbox)}")
    sandbox.rollback(start)
    print(f"back again: {sandbox.read('sum.py') == PROGRAM}")
    for fork in [*forks.values(), sandbox]:
        fork.destroy()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
