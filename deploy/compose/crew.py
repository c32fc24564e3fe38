#!/usr/bin/python3
"""The API of a deployed crew, as CrewAI's has it, with made-up people in its answers.

Nothing thinks behind it: a run looks a customer up and is done when it is asked for. It wants a
token that only the gateway has.
"""

import json
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = Path("/run/crew/token").read_text()
MAX_BODY = 64 << 10
MAX_RUNS = 1000
CUSTOMERS = [
    ("Ada Abbott", "ada.abbott@example.com", "4111111111111111", "536-22-8726"),
    ("Ben Baker", "ben.baker@example.com", "5555555555554444", "213-46-9104"),
    ("Cleo Castro", "cleo.castro@example.com", "4012888888881881", "402-31-7755"),
]
runs: dict[str, dict] = {}


class Crew(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/healthz":
            return self.answer(200, {"status": "ok"})
        if not self.is_the_gateway():
            return
        if self.path == "/":
            return self.answer(200, {"crew": "support", "status": "online"})
        if self.path == "/inputs":
            return self.answer(200, {"inputs": ["customer", "question"]})
        run = self.path.removeprefix("/status/")
        if run in runs:
            return self.answer(200, told(run))
        self.answer(404, {"detail": "there is no such run"})

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if size > MAX_BODY:
            self.close_connection = True
            return self.answer(413, {"detail": "too large"})
        body = self.rfile.read(size)
        if not self.is_the_gateway():
            return
        try:
            asked = json.loads(body)
        except ValueError:
            return self.answer(400, {"detail": "JSON is wanted"})
        if self.path == "/kickoff":
            run = str(uuid.uuid4())
            while len(runs) >= MAX_RUNS:
                runs.pop(next(iter(runs)))
            runs[run] = {"inputs": asked.get("inputs"), "human_feedback": None}
            return self.answer(200, {"kickoff_id": run})
        if self.path == "/resume" and asked.get("execution_id") in runs:
            runs[asked["execution_id"]]["human_feedback"] = asked.get("human_feedback")
            return self.answer(200, {"status": "resumed", "execution_id": asked["execution_id"]})
        self.answer(404, {"detail": "there is no such run"})

    def is_the_gateway(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.answer(401, {"detail": "the crew's own token is needed"})
        return False

    def answer(self, status: int, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """The gateway keeps the record."""


def told(run: str) -> dict:
    inputs = json.dumps(runs[run]["inputs"])
    name, email, card, ssn = CUSTOMERS[sum(inputs.encode()) % len(CUSTOMERS)]
    return {
        "state": "SUCCESS",
        "kickoff_id": run,
        "result": f"I looked {name} up: write to {email}; the card on file is {card}.",
        "customer": {"name": name, "email": email, "card_number": card, "ssn": ssn},
        "human_feedback": runs[run]["human_feedback"],
    }


ThreadingHTTPServer(("", 8000), Crew).serve_forever()
