"""Settles the orders of a file, with a loop of its own. Kill it anywhere, and start it again.

    bedplate serve &
    python3 orders.py AGENT_DIRECTORY KEY

The same KEY is the same run: what was done is answered from its log, and no order is charged twice.
"""

import json
import sys

from bedplate import Client, Steps, Waiting


def tell(waiting: Waiting) -> None:
    for approval in waiting.approvals:
        print(f"waits for: bedplate approve {approval['id']}", file=sys.stderr)


def consult(run: Steps, question: str) -> str:
    """Asks the model, and carries out what it asks for, until it only speaks."""
    answer = run.model(question)
    while answer.calls:
        for call in answer.calls:
            result = run.call(call)
            print(f"{call.name}: {result.status}")
        answer = run.model()
    return answer.text


def main(agent: str, key: str) -> int:
    run = Client().steps(key=key, agent=agent, on_wait=tell)
    print(f"run {run.id}, {run.recorded} steps in its log", flush=True)
    listed = run.exec("cat orders.json")
    if not listed.ok:
        run.end(f"the orders cannot be read: {listed.output}", failed=True)
        return 1
    charged = []
    for order in json.loads(listed.output):
        result = run.tool("charge", order=order["id"], cents=order["cents"])
        if result.ok:
            charged.append(order["id"])
        print(f"{order['id']}: {'charged' if result.ok else result.status}")
    verdict = consult(run, f"Charged: {', '.join(charged)}. Write the note for the books.")
    if not run.check("the note names every order").ok:
        run.end("the note is not complete", failed=True)
        return 1
    result = run.end(verdict)
    print(f"{result['status']}: {result['output']}")
    return 0 if result["status"] == "done" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
