"""What HTTP/2 clients should not do, done with raw frames; says how each connection ended."""

import faulthandler
import os
import socket
import struct
import sys
from urllib.parse import urlsplit

from hpack import Encoder

faulthandler.dump_traceback_later(50, exit=True)

GATEWAY, TOKEN = urlsplit(os.environ["GATEWAY"]), os.environ["TOKEN"]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 2, 3, 4, 6, 7
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM, END_HEADERS = 1, 4
NAMES = {0: "NO_ERROR", 1: "PROTOCOL_ERROR", 11: "ENHANCE_YOUR_CALM", 9: "COMPRESSION_ERROR"}


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def fields(path, more=(), method="GET"):
    pseudo = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path)]
    return pseudo + [("authorization", f"Bearer {TOKEN}"), *more]


class Connection:
    def __init__(self):
        self.socket = socket.create_connection((GATEWAY.hostname, GATEWAY.port), 60)
        self.encoder, self.left, self.seen = Encoder(), b"", []
        self.send(PREFACE + frame(SETTINGS, 0, 0))

    def send(self, data):
        """Says whether the other side still takes it."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def headers(self, stream, path, more=(), method="GET", flags=END_STREAM | END_HEADERS):
        return frame(HEADERS, flags, stream, self.encoder.encode(fields(path, more, method)))

    def end(self, until=None):
        """Reads until the other side closes, or a frame for this stream came; gives how it ended."""
        try:
            while True:
                while len(self.left) >= 9:
                    length = int.from_bytes(self.left[:3], "big")
                    if len(self.left) < 9 + length:
                        break
                    kind, stream = self.left[3], int.from_bytes(self.left[5:9], "big")
                    payload, self.left = self.left[9 : 9 + length], self.left[9 + length :]
                    if kind == GOAWAY:
                        code = int.from_bytes(payload[4:8], "big")
                        return f"GOAWAY {NAMES.get(code, code)}"
                    if until is not None and stream == until and kind in (HEADERS, RST_STREAM):
                        return "RST_STREAM" if kind == RST_STREAM else f"HEADERS {payload[:1].hex()}"
                data = self.socket.recv(65536)
                if not data:
                    return "closed"
                self.left += data
        except OSError as error:
            return f"closed ({type(error).__name__})"


def rapid_reset():
    connection = Connection()
    for batch in range(200):
        data = b""
        for n in range(100):
            stream = 1 + 2 * (batch * 100 + n)
            data += connection.headers(stream, "/crew/reset")
            data += frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
        if not connection.send(data):
            break
    else:
        raise SystemExit("twenty thousand streams were opened and cancelled")
    return connection.end()


def continuation():
    connection = Connection()
    block = connection.encoder.encode(fields("/crew/x"))
    connection.send(frame(HEADERS, END_STREAM, 1, block))
    for _ in range(10_000):
        if not connection.send(frame(CONTINUATION, 0, 1, b"\x00\x01a\x7f\x81\x40" + b"x" * 192)):
            break
    else:
        raise SystemExit("ten thousand CONTINUATION frames were taken")
    return connection.end()


def flood(kind, payload, stream=0):
    connection = Connection()
    if stream:
        # A request whose body is still to come.
        connection.send(connection.headers(stream, "/crew/x", (), "POST", END_HEADERS))
    for _ in range(2_000):
        if not connection.send(frame(kind, 0, stream, payload) * 20):
            break
    # What was sent may not have been read yet.
    connection.socket.settimeout(20)
    ended = connection.end()
    if "Timeout" in ended:
        raise SystemExit(f"forty thousand frames of kind {kind} were taken")
    return ended


def ordinary():
    """Pings and windows with each of many requests are no flood."""
    connection = Connection()
    for n in range(2_000):
        stream = 1 + 2 * n
        data = connection.headers(stream, "/crew/status/204") + frame(PING, 0, 0, b"12345678")
        data += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 100)) + frame(PRIORITY, 0, stream, bytes(5))
        connection.send(data)
        ended = connection.end(until=stream)
        if not ended.startswith("HEADERS"):
            return f"request {n}: {ended}"
    return "200"


def floods():
    print("settings:", flood(SETTINGS, b""))
    print("ping:", flood(PING, b"12345678"))
    print("priority:", flood(PRIORITY, bytes(5), 3))
    print("window:", flood(WINDOW_UPDATE, struct.pack(">I", 1)))
    print("unknown:", flood(99, b""))
    print("empty data:", flood(DATA, b"", 1))


def hpack():
    """A small block that stands for megabytes of header fields."""
    connection = Connection()
    block = connection.encoder.encode(fields("/crew/x", [("x-large", "a" * 4000)]))
    connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, block))
    indexed = bytes([0x80 | 62]) * 16_000
    start = Encoder().encode(fields("/crew/x"))
    connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 3, start + indexed))
    return connection.end(until=3)


def request(more, method="POST", body=b"abc"):
    connection = Connection()
    # The library checks nothing that is given to the encoder.
    connection.send(connection.headers(1, "/crew/smuggled", more, method, END_HEADERS))
    connection.send(frame(DATA, END_STREAM, 1, body))
    ended = connection.end(until=1)
    if ended.startswith("HEADERS 88"):
        raise SystemExit(f"{more} was taken")
    return ended


if sys.argv[1:] == ["floods"]:
    floods()
    print("ordinary:", ordinary())
    sys.exit()

print("rapid-reset:", rapid_reset())
print("continuation:", continuation())
floods()
print("hpack:", hpack())
print("crlf:", request([("x-a", "1\r\ntransfer-encoding: chunked")]))
print("te:", request([("transfer-encoding", "chunked")]))
print("length:", request([("content-length", "10")]))
print("connection:", request([("connection", "close")]))
print("upper case:", request([("X-Upper", "1")]))
print("two lengths:", request([("content-length", "3"), ("content-length", "3")]))
print("another host:", request([("host", "y")]))
