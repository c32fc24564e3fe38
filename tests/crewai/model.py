"""A model that says what a script says, over OpenAI's chat completions.

`SCRIPT` names tasks by words of their description. Of a task's steps the next one is called, with
the tool's own arguments, until each has its result in the conversation; then the answer is the
results themselves, so that whoever reads the crew's output sees what the model was shown.
"""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Words of a task, and its steps: a tool with its arguments.
SCRIPT = {
    "TASK-READ": [
        ("run_sql", {"statement": "select name, email, card_number, ssn from customers order by id limit 3"}),
        ("run_sql", {"statement": "select count(*) from orders"}),
        ("ask_support", {"customer": "7"}),
    ],
    "TASK-REPAIR": [
        ("run_sql", {"statement": "update orders set status = 'paid' where id = 4"}),
        ("run_sql", {"statement": "drop table customers"}),
        ("run_on_host", {"line": "echo the host answers"}),
        ("run_sql", {"statement": "select status from orders where id = 4"}),
    ],
}


class Model(BaseHTTPRequestHandler):
    """Answers one request for a completion."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = reply(asked["messages"])
        finish = "tool_calls" if "tool_calls" in message else "stop"
        self.answer(
            {
                "id": "chatcmpl-scripted",
                "object": "chat.completion",
                "created": 0,
                "model": asked["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )

    def answer(self, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """The test's output is the crew's."""


def reply(messages: list[dict]) -> dict:
    """What the script has the model say next in this conversation."""
    told = " ".join(str(message.get("content")) for message in messages)
    # The last task named: earlier ones stand in what a later task is given to read.
    steps = SCRIPT[max(SCRIPT, key=told.rfind)]
    results = [message["content"] for message in messages if message["role"] == "tool"]
    if len(results) == len(steps):
        return {"role": "assistant", "content": "\n---\n".join(results)}
    tool, arguments = steps[len(results)]
    call = {
        "id": f"call_{len(results)}",
        "type": "function",
        "function": {"name": tool, "arguments": json.dumps(arguments)},
    }
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@contextmanager
def serving():
    """Serves on loopback; gives the base address that clients of OpenAI take."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
