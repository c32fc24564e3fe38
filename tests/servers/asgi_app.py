"""A service behind the gateway: an ASGI application in hypercorn, over HTTP/1.1 and HTTP/2.

Prints its port, then a line of JSON for each request as it came. Ends when its standard input does.
With a certificate and a key as arguments it speaks TLS.
"""

import asyncio
import gzip
import hashlib
import json
import os
import socket
import sys
import threading
from urllib.parse import parse_qs, parse_qsl

from hypercorn.asyncio import serve
from hypercorn.config import Config

released = {}


def tell(**told):
    # One write: lines of several threads do not mix.
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


async def body_of(receive):
    digest, length, first = hashlib.sha256(), 0, b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        digest.update(chunk)
        length += len(chunk)
        first = first if len(first) > 65536 else first + chunk
        if not message.get("more_body"):
            return first[:65536], length, digest.hexdigest()


async def answer(send, status=200, body=b"", headers=(), kind="text/plain"):
    fields = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    fields += [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def stream(send, chunks, kind="text/plain"):
    head = {"type": "http.response.start", "status": 200}
    await send({**head, "headers": [(b"content-type", kind.encode())]})
    async for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def events(name):
    """The second event comes once the first was seen: somebody asks for /release."""
    yield b"id: 1\nevent: step\ndata: first\n\n"
    await released.setdefault(name, asyncio.Event()).wait()
    yield b"id: 2\nevent: step\ndata: second\n\n"


async def pieces(text):
    for byte in text.encode():
        yield bytes([byte])
        await asyncio.sleep(0)


async def events_of(name, data):
    yield f"event: {name}\r\ndata: {data}\r\n\r\n".encode()
    yield b'event: message\ndata: {"path": "/messages/"}\n\n'


async def echo_part(send, headers):
    """Says back what it was sent, as a whole or the part of it that is asked for."""
    body = json.dumps(headers).encode()
    asked = headers.get("range", "").removeprefix("bytes=").split(",")[0]
    if not asked:
        return await answer(send, body=body, headers=[("accept-ranges", "bytes")])
    begin, end = asked.split("-")
    begin, end = int(begin), min(int(end or len(body)), len(body) - 1)
    fields = [("content-range", f"bytes {begin}-{end}/{len(body)}")]
    await answer(send, 206, body=body[begin : end + 1], headers=fields)


EMAIL, SSN = "alice.secret@example.com", "078-05-1120"
CUSTOMER = {"customer": {"name": "Alice", "email": EMAIL, "ssn": SSN}, "total": 7}
JSON = json.dumps(CUSTOMER)


def escaped(text):
    """Every character of keys and values as an escape."""
    if isinstance(text, dict):
        return "{" + ",".join(f"{escaped(k)}:{escaped(v)}" for k, v in text.items()) + "}"
    if isinstance(text, str):
        return '"' + "".join(f"\\u{ord(c):04x}" for c in text) + '"'
    return json.dumps(text)


EVENTS = f": {EMAIL}\nevent: step\ndata: {JSON[:30]}\ndata: {JSON[30:]}\n\ndata: to {EMAIL}\n\ndata: [DONE]\n\n"
FORM = f"to={EMAIL.replace('@', '%40')}&%73sn={SSN}&n=7"
# Bodies with what nobody may see, by content type.
SECRETS = {
    "json": ("application/json", JSON),
    "problem": ("application/problem+json; charset=utf-8", JSON),
    "escaped": ("application/json", escaped(CUSTOMER)),
    "lines": ("application/x-ndjson", f"{JSON}\n{JSON}\n"),
    "text": ("text/plain; charset=utf-8", f"Alice, {EMAIL}"),
    "disguised": ("text/plain", JSON),
    "untyped": (None, JSON),
    "html": ("text/html", f"<a href='mailto:{EMAIL}'>Alice</a>"),
    "binary": ("application/octet-stream", f"\0\1{EMAIL}\2"),
    "form": ("application/x-www-form-urlencoded", FORM),
    "events": ("text/event-stream", EVENTS),
    "empty": ("application/json", ""),
    # What cannot be masked.
    "broken": ("application/json", JSON[:-2]),
    "not-json": ("application/json", f"Alice {SSN}"),
    "large": ("application/json", json.dumps({"a": SSN + "x" * (2 << 20)})),
    "parts": ("multipart/mixed; boundary=b", f"--b\r\n\r\n{JSON}\r\n--b--"),
    "utf-16": ("application/json; charset=utf-16", JSON),
    "utf-7": ("text/plain; charset=utf-7", EMAIL),
}


async def secrets(send, how, query):
    """A body of SECRETS, `chunk` bytes at a time, as `coding` says."""
    kind, text = SECRETS[how]
    options = dict(pair.split("=") for pair in query.split("&") if pair)
    body = text.encode()
    headers = [
        (b"x-customer", EMAIL.encode()),
        (b"etag", b'"1"'),
        (b"last-modified", b"Sat, 21 Nov 2026 10:00:00 GMT"),
        (b"accept-ranges", b"bytes"),
        (b"digest", b"sha-256=abc"),
        (b"link", f"</customers/{EMAIL.replace('@', '%40')}>; rel=self".encode()),
    ]
    headers += [(b"content-type", kind.encode())] if kind else []
    if options.get("coding") == "gzip":
        body = gzip.compress(body)
        headers.append((b"content-encoding", b"gzip"))
    status = int(options.get("status", 200))
    size = int(options.get("chunk", 0)) or len(body) or 1
    if size == len(body):
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for at in range(0, len(body), size):
        part = {"type": "http.response.body", "body": body[at : at + size]}
        await send({**part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def raw(send, query):
    """What the query says: `body` in hexadecimal, `chunk` bytes at a time, of `type`, in `coding`."""
    options = {name: values[0] for name, values in parse_qs(query).items()}
    body = bytes.fromhex(options["body"])
    names = {"type": b"content-type", "coding": b"content-encoding"}
    headers = [(names[n], options[n].encode()) for n in names if n in options]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    size = int(options["chunk"]) or len(body)
    for at in range(0, len(body), size):
        part = {"type": "http.response.body", "body": body[at : at + size]}
        await send({**part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def zeros(length):
    block = bytes(65536)
    while length > 0:
        yield block[:length]
        length -= len(block)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] == "websocket":
        return await websocket(scope, receive, send)
    headers = [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]]
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    asked = {"method": scope["method"], "path": path.split("?")[0], "query": query}
    tell(**asked, version=scope["http_version"], headers=headers)
    received = await body_of(receive)
    if received is None:
        return
    first, length, digest = received
    of = dict(headers)
    parts = asked["path"].strip("/").split("/")
    match parts[0]:
        case "bytes":
            await stream(send, zeros(int(parts[1])), "application/octet-stream")
        case "secrets":
            await secrets(send, parts[1], query)
        case "raw":
            await raw(send, query)
        case "digest":
            told = {"length": length, "sha256": digest}
            await answer(send, body=json.dumps(told).encode(), kind="application/json")
        case "events":
            await stream(send, events(query), "text/event-stream")
        case "release":
            released.setdefault(query, asyncio.Event()).set()
            await answer(send)
        case "hang":
            while (await receive())["type"] != "http.disconnect":
                pass
            tell(gone=asked["path"])
        case "leak":
            await stream(send, pieces(json.dumps({"got": of.get("authorization")})))
        case "leak-header":
            await answer(send, headers=[("x-got", of.get("authorization", ""))])
        case "status":
            await answer(send, int(parts[1]), b"" if parts[1] in ("204", "304") else b"told")
        case "redirect":
            await answer(send, 302, headers=[("location", query)])
        case "cookie":
            await answer(send, headers=[("set-cookie", "sid=sekrit-cookie; Path=/")])
        case "with":
            # Header fields as the query says.
            await answer(send, body=b"harmless", headers=parse_qsl(query, keep_blank_values=True))
        case "mcp":
            # The HTTP with SSE transport of the Model Context Protocol: where messages are posted to.
            place = query or "/messages/?session_id=7"
            await stream(send, events_of("endpoint", place), "text/event-stream; charset=utf-8")
        case "messages":
            await answer(send, 202, body=first)
        case "echo-part":
            await echo_part(send, of)
        case "gzip":
            fields = [("content-encoding", "gzip")]
            await answer(send, body=gzip.compress(b"hello " * 100), headers=fields)
        case _:
            told = {**asked, "headers": headers, "length": length, "sha256": digest}
            told |= {"body": first.decode("latin-1"), "version": scope["http_version"]}
            await answer(send, body=json.dumps(told).encode(), kind="application/json")


async def websocket(scope, receive, send):
    path, headers = scope["path"], scope["headers"]
    headers = [[name.decode(), value.decode("latin-1")] for name, value in headers]
    tell(method="WEBSOCKET", path=path, headers=headers)
    assert (await receive())["type"] == "websocket.connect"
    if path == "/refuse":
        return await send({"type": "websocket.close"})
    protocols = scope["subprotocols"]
    chosen = protocols[0] if protocols else None
    await send({"type": "websocket.accept", "subprotocol": chosen})
    if path.startswith("/cut/"):
        return await cut(send, dict(headers)["authorization"], int(path.split("/")[2]))
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "bye":
            await send({"type": "websocket.close", "code": 4001, "reason": "as you wish"})
            break
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
    tell(gone=path)


async def cut(send, value, size):
    """Says a value in messages of so many characters."""
    for at in range(0, len(value), size):
        await send({"type": "websocket.send", "text": value[at : at + size]})
    await send({"type": "websocket.close", "code": 1000})


async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def answer_marks_and_end_with_input():
    for line in sys.stdin:
        tell(mark=line.strip())
    os._exit(0)


async def main():
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", 0))))
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.loglevel = "WARNING"
    config.keep_alive_timeout = 60
    if len(sys.argv) > 1:
        config.certfile, config.keyfile = sys.argv[1:3]
    tell(port=listener.getsockname()[1])
    threading.Thread(target=answer_marks_and_end_with_input, daemon=True).start()
    await serve(app, config)


asyncio.run(main())
