"""A quickstart in a folder of its own, and its command line as the test uses it."""

import json
import os
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

MAX_WAIT = 120


def wait_for(what: str, ask):
    """What `ask` gives, once that is something."""
    deadline = time.monotonic() + MAX_WAIT
    while time.monotonic() < deadline:
        if found := ask():
            return found
        time.sleep(0.1)
    raise TimeoutError(f"no {what} within {MAX_WAIT} s")


class Gateway:
    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary, self.folder = binary, folder
        self.state_file = folder / "quickstart.json"

    @property
    def state(self) -> dict:
        return json.loads(self.state_file.read_text())

    def run(self, *arguments: str, user: str | None = None) -> subprocess.CompletedProcess:
        """A command, as a user over the API, or through the gateway's own socket."""
        environment = {**os.environ, "PORTCULLIS_CONFIG": self.state["config"]}
        if user is not None:
            environment["PORTCULLIS_SERVER"] = self.state["web"]
            environment["PORTCULLIS_TOKEN"] = self.state["tokens"][user]
        return subprocess.run(
            [self.binary, *arguments], env=environment, capture_output=True, text=True, timeout=60
        )

    def json(self, *arguments: str, user: str | None = None):
        done = self.run(*arguments, "--json", user=user)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def replayed(self, session: str) -> list[dict]:
        """The recorded events of a session, in their order."""
        done = self.run("replay", session, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def quickstart(binary: Path):
    with tempfile.TemporaryDirectory(prefix="portcullis-crewai-") as parent:
        # PostgreSQL's user, when root runs this, has to pass through it.
        os.chmod(parent, 0o711)
        folder = Path(parent) / "quickstart"
        listeners = [f"--{name}=127.0.0.1:0" for name in ("postgres", "web", "ssh", "http")]
        log = open(Path(parent) / "log", "w+")
        process = subprocess.Popen(
            [binary, "quickstart", f"--data-dir={folder}", *listeners], stdout=log, stderr=log
        )
        gateway = Gateway(binary, folder)
        try:
            wait_for("gateway", lambda: process.poll() is not None or gateway.state_file.exists())
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(log.read())
            yield gateway
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(60)
