"""CrewAI through the gateway: test.py PORTCULLIS. Says what it saw, and fails on what it should not.

A quickstart serves; a crew of two agents reads masked rows, asks a service, has an UPDATE held until
somebody else approves it, meets a blocked DROP, and runs a command on a host. Then the gateway's own
account of the run is held against what the crew did.
"""

import json
import os
import re
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import model
from gateway import Gateway, quickstart, wait_for

HERE = Path(__file__).parent
UPDATE = "update orders set status = 'paid' where id = 4"
DROP = "drop table customers"
# What the index has of the crew's statements, besides those that SQLAlchemy sends on its own. Where
# masked columns are read, a literal might be one of their values, so it is not stored.
READ = "select name, email, card_number, ssn from customers order by id limit ?"
STATEMENTS = [
    (READ, "allow"),
    ("select count(*) from orders", "allow"),
    (UPDATE, "approve"),
    (DROP, "block"),
    ("select status from orders where id = 4", "allow"),
]
# CrewAI is told to keep to itself, and to write nowhere but below the test's folder.
QUIET = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "CREWAI_TESTING": "true",
    "OTEL_SDK_DISABLED": "true",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def main(binary: Path) -> None:
    run = f"run-{uuid.uuid4()}"
    with quickstart(binary) as gateway, model.serving() as address:
        done = crew_with_an_approver(gateway, address, run)
        the_crew_saw(done["tasks"])
        assert done["refused"] == [], f"it wanted to reach {done['refused']}"
        say("it asked for nothing beyond this machine")
        sessions = the_run_has(gateway, run)
        the_database_went_as_approved(gateway, sessions)
        replay_agrees(gateway, sessions)
        nothing_masked_is_stored(gateway)
    say("passed")


def crew_with_an_approver(gateway: Gateway, address: str, run: str) -> dict:
    home = gateway.folder / "crew-home"
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **QUIET}
    problems: list[BaseException] = []

    def approve() -> None:
        try:
            the_update_waits_for_somebody_else(gateway, run)
        except BaseException as problem:  # told by the thread that waits for this one
            problems.append(problem)

    approver = threading.Thread(target=approve)
    approver.start()
    crew = subprocess.run(
        [sys.executable, HERE / "crew.py", gateway.state_file, address, run],
        env=environment, cwd=home, capture_output=True, text=True, timeout=300,
    )
    approver.join()
    assert not problems, problems
    assert crew.returncode == 0, crew.stderr
    say("the crew finished")
    return json.loads(crew.stdout.splitlines()[-1])


def the_update_waits_for_somebody_else(gateway: Gateway, run: str) -> None:
    pending = wait_for("request", lambda: gateway.json("approval", "list", user="approver"))
    (request,) = pending
    assert request["run"] == run and request["username"] == "agent", request
    id = request["id"]
    own = gateway.run("approval", "approve", id, user="agent")
    assert own.returncode != 0, "the agent approved its own command"
    still = gateway.json("approval", "list", user="approver")
    assert [one["id"] for one in still] == [id], still
    say("the UPDATE waits, and the agent may not approve it")
    decided = gateway.run("approval", "approve", id, "--comment", "looked at", user="approver")
    assert decided.returncode == 0, decided.stderr
    say("the approver approved it")


def the_crew_saw(tasks: list[str]) -> None:
    read, repair = tasks
    rows, count, support = read.split("\n---\n")
    masked = re.compile(r"\('[A-Za-z ]+', '.\*\*\*@example\.com', '\[masked\]', '\[masked\]'\)")
    assert len(rows.splitlines()) == 3 and all(map(masked.fullmatch, rows.splitlines())), rows
    assert (count, support) == ("(6000,)", "SUCCESS"), (count, support)
    changed, dropped, host, status = repair.split("\n---\n")
    assert changed == "1 rows changed", changed
    assert dropped.startswith("failed: DROP and TRUNCATE are for a migration"), dropped
    assert host == "exit status 0\nthe host answers\n", host
    assert status == "('paid',)", status
    for line in rows.splitlines() + [changed, dropped.splitlines()[0]]:
        say(f"  the crew saw: {line}")


def the_run_has(gateway: Gateway, run: str) -> dict[str, dict]:
    """The run's sessions by protocol, each with its commands, once all are indexed as ended."""

    def listed():
        # An HTTP session goes on until nothing was asked for a while.
        sessions = gateway.json("session", "list", "--run", run)
        by_protocol = {session["protocol"]: session for session in sessions}
        over = all(by_protocol.get(name, {}).get("ended") for name in ("postgres", "ssh"))
        http = by_protocol.get("http", {}).get("commands") == 2
        return by_protocol if over and http and len(sessions) == 3 else None

    found = {}
    for protocol, session in wait_for("complete index", listed).items():
        assert session["workflow"] == "support" and session["run"] == run, session
        assert session["username"] == "agent", session
        shown = gateway.json("session", "show", session["id"])
        assert all(command["run"] == run for command in shown["commands"])
        found[protocol] = shown
    decided = {
        command["text"]: command["verdict"] for command in found["postgres"]["commands"]
    }
    for statement, verdict in STATEMENTS:
        assert decided.get(statement) == verdict, (statement, decided.get(statement))
        say(f"  postgres: {verdict}: {statement}")
    for protocol in ("ssh", "http"):
        for command in found[protocol]["commands"]:
            assert command["verdict"] == "allow", command
            say(f"  {protocol}: allow: {re.sub('/status/.*', '/status/…', command['text'])}")
    say("session list --run has all three sessions, session show every command")
    return found


def the_database_went_as_approved(gateway: Gateway, sessions: dict[str, dict]) -> None:
    (update,) = [c for c in sessions["postgres"]["commands"] if c["text"] == UPDATE]
    assert update["overridden"] == "approval" and update["rows"] == 1, update
    (read,) = [c for c in sessions["postgres"]["commands"] if c["text"] == READ]
    assert read["masked"] == {"customer-contact": 3, "customer-numbers": 6}, read["masked"]


def replay_agrees(gateway: Gateway, sessions: dict[str, dict]) -> None:
    for protocol, shown in sessions.items():
        events = gateway.replayed(shown["session"]["id"])
        assert [event["sequence"] for event in events] == list(range(len(events))), protocol
        recorded = {
            event["sequence"]: event["payload"] for event in events if event["kind"] == "command"
        }
        for command in shown["commands"]:
            payload = recorded[command["sequence"]]
            assert payload["decision"]["verdict"] == command["verdict"], command
            assert payload["command"].get("text") in (command["text"], None), payload
    steps = [
        event["payload"]["step"]
        for event in gateway.replayed(sessions["postgres"]["session"]["id"])
        if event["kind"] == "approval"
    ]
    assert steps == ["asked", "released"], steps
    for protocol in ("postgres", "ssh"):
        id = sessions[protocol]["session"]["id"]
        (file,) = (gateway.folder / "data/recordings").glob(f"*/{id}.rec")
        proved = gateway.run("recording", "verify", str(file))
        assert proved.returncode == 0, proved.stderr
    say("replay agrees with the index, and the recordings are proved")


def nothing_masked_is_stored(gateway: Gateway) -> None:
    """The shop's own rows, asked of the shop itself, are in no recording."""
    known = subprocess.run(
        ["zstd", "-dcq", *map(str, (gateway.folder / "data/recordings").glob("*/*.rec"))],
        capture_output=True, check=True,
    ).stdout
    assert DROP.encode() in known and b"the host answers" in known
    # Card numbers of the shop begin like this, its social security numbers with a 9.
    assert b"400000" not in known and not re.search(rb"9\d\d-\d\d-\d\d\d\d", known)
    for token in gateway.state["tokens"].values():
        assert token.encode() not in known
    say("no recording holds a masked value or a token")


def say(what: str) -> None:
    print(what, flush=True)


main(Path(sys.argv[1]).resolve())
