"""HTTP/2 frame by frame: each rule of RFC 9113 and RFC 7541 that a server holds clients to, tried on a
connection of its own with raw frames. Says `ok` or `FAILED` of each, and how the gateway answered."""

import faulthandler
import os
import socket
import struct
import sys
from urllib.parse import urlsplit

from hpack import Encoder

faulthandler.dump_traceback_later(300, exit=True)

GATEWAY, TOKEN = urlsplit(os.environ["GATEWAY"]), os.environ["TOKEN"]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
ACK = END_STREAM = 1
END_HEADERS, PADDED, PRIORITIZED = 4, 8, 32
CODES = """NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED
FRAME_SIZE_ERROR REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM
INADEQUATE_SECURITY HTTP_1_1_REQUIRED""".split()
WHOLE = END_STREAM | END_HEADERS
# What a request looks like when nothing is wrong with it.
PSEUDO = [(":method", "GET"), (":scheme", "http"), (":authority", "x")]


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    length = len(payload) if length is None else length
    return length.to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def window(stream, more):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", more))


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", name, value) for name, value in pairs))


def reset(stream, code=8):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


class Connection:
    def __init__(self, first=settings()):
        self.socket = socket.create_connection((GATEWAY.hostname, GATEWAY.port), 20)
        self.encoder, self.left, self.ended = Encoder(), b"", None
        self.send(PREFACE + first)

    def send(self, *frames):
        try:
            self.socket.sendall(b"".join(frames))
        except OSError:
            pass  # The other side has closed, and what it said is read below.
        return self

    def block(self, path="/crew/x", more=(), pseudo=PSEUDO, method="GET"):
        pseudo = [(n, method if n == ":method" else v) for n, v in pseudo]
        path = [(":path", path)] if path is not None else []
        return self.encoder.encode([*pseudo, *path, ("authorization", f"Bearer {TOKEN}"), *more])

    def ask(self, stream=1, flags=WHOLE, **how):
        return self.send(frame(HEADERS, flags, stream, self.block(**how)))

    def post(self, stream=1, **how):
        """A request whose body is still to come."""
        return self.ask(stream, END_HEADERS, method="POST", **how)

    def frames(self):
        while self.ended is None:
            while len(self.left) >= 9:
                length = int.from_bytes(self.left[:3], "big")
                if len(self.left) < 9 + length:
                    break
                kind, flags = self.left[3], self.left[4]
                stream = int.from_bytes(self.left[5:9], "big") & 0x7FFFFFFF
                payload, self.left = self.left[9 : 9 + length], self.left[9 + length :]
                yield kind, flags, stream, payload
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                self.ended = "nothing came"
                return
            except OSError:
                data = b""
            if not data:
                self.ended = "closed"
            self.left += data

    def verdict(self, stream=1):
        """What came first: an end of the connection, of the stream, or an answer (by its status)."""
        for kind, flags, of, payload in self.frames():
            if kind == GOAWAY and payload[4:8] != bytes(4):
                return "GOAWAY " + CODES[int.from_bytes(payload[4:8], "big")]
            if kind == RST_STREAM and of == stream:
                return "RST_STREAM " + CODES[int.from_bytes(payload, "big")]
            if kind == HEADERS and of == stream:
                return "status " + status(payload)
        return self.ended

    def lives(self):
        """Whether the connection goes on: a ping comes back."""
        self.send(frame(PING, 0, 0, b"areyouon"))
        for kind, flags, _, payload in self.frames():
            if kind == PING and flags & ACK and payload == b"areyouon":
                return "lives"
            if kind == GOAWAY and payload[4:8] != bytes(4):
                return "GOAWAY " + CODES[int.from_bytes(payload[4:8], "big")]
        return self.ended


def status(block):
    """The status that a block begins with: hyper writes it first, mostly indexed."""
    indexed = {0x88: "200", 0x89: "204", 0x8A: "206", 0x8B: "304", 0x8C: "400", 0x8D: "404", 0x8E: "500"}
    if block[:1] in (b"\x08", b"\x48", b"\x18"):
        from hpack import Decoder

        return dict(Decoder().decode(block[: 2 + (block[1] & 127)]))[":status"]
    return indexed.get(block[0], block[:4].hex())


RULES = []
failed = 0


def rule(name, *fine):
    """A rule, and the answers that keep it. A connection may always be closed instead of its streams."""

    def add(function):
        RULES.append((name, fine, function))
        return function

    return add


PROTOCOL, SIZE, CLOSED = "PROTOCOL_ERROR", "FRAME_SIZE_ERROR", "STREAM_CLOSED"
FLOW, COMPRESSION = "FLOW_CONTROL_ERROR", "COMPRESSION_ERROR"


def connection_error(code):
    """The connection ends. The codec gives the general code where the RFC has a closer one."""
    return f"GOAWAY {code}", f"GOAWAY {PROTOCOL}", "closed"


def stream_error(code):
    return f"RST_STREAM {code}", f"GOAWAY {code}", f"GOAWAY {PROTOCOL}", "closed"


# A malformed request is a stream error; a server may also say so with a status (8.1.1).
MALFORMED = (*stream_error(PROTOCOL), "status 400", "status 431")


def sends(name, fine, make, **options):
    """A rule about frames that follow the settings, or follow an answered request with `after`."""

    def run(after=False, stream=1):
        connection = Connection()
        if after:
            connection.ask()
            assert connection.verdict() == "status 200"
        return connection.send(*make(connection)).verdict(stream)

    RULES.append((name, fine, lambda: run(**options)))


# 3.4: how a connection begins.
@rule("3.4 the preface is followed by SETTINGS", *connection_error(PROTOCOL))
def _():
    return Connection(first=frame(PING, 0, 0, bytes(8))).verdict()


@rule("3.4 another preface is none", "closed", "HTTP/1.1")
def _():
    with socket.create_connection((GATEWAY.hostname, GATEWAY.port), 20) as raw:
        raw.sendall(PREFACE[:-4] + b"XX\r\n" + settings())
        said = raw.recv(100)
    return "HTTP/1.1" if said.startswith(b"HTTP/1.1 ") else "closed" if not said else said.hex()


# 4: frames.
sends("4.1 a frame of unknown kind is passed over", ("status 200",), lambda c: [frame(0x16, 0, 0, b"x"), frame(HEADERS, WHOLE, 1, c.block())])
sends("4.1 unknown flags are passed over", ("status 200",), lambda c: [frame(PING, 0xF6, 0, bytes(8)), frame(HEADERS, WHOLE, 1, c.block())])
sends("4.1 the reserved bit is passed over", ("status 200",), lambda c: [frame(HEADERS, WHOLE, 1 | 1 << 31, c.block())])
sends("4.2 DATA over the frame size", stream_error(SIZE), lambda c: [frame(HEADERS, END_HEADERS, 1, c.block(method="POST", path="/crew/begun")), frame(DATA, END_STREAM, 1, bytes(16385))])
sends("4.2 HEADERS over the frame size", connection_error(SIZE), lambda c: [frame(HEADERS, WHOLE, 1, bytes(16385))])
sends("4.3 a block that is no HPACK", connection_error(COMPRESSION), lambda c: [frame(HEADERS, WHOLE, 1, b"\xff\xff\xff\xff\xff\xff")])
sends("4.3 another frame within a block", connection_error(PROTOCOL), lambda c: [frame(HEADERS, END_STREAM, 1, c.block()[:5]), frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 1))])
sends("4.3 another stream within a block", connection_error(PROTOCOL), lambda c: [frame(HEADERS, END_STREAM, 1, c.block()), frame(HEADERS, WHOLE, 3, c.block())])

# 5: streams.
for kind, payload in ((DATA, b"x"), (RST_STREAM, bytes(4)), (WINDOW_UPDATE, struct.pack(">I", 9)), (CONTINUATION, b"")):
    sends(f"5.1 frame {kind} on an idle stream", connection_error(PROTOCOL), lambda c, k=kind, p=payload: [frame(k, 0, 1, p)])
sends("5.1 DATA on a half-closed stream", stream_error(CLOSED), lambda c: [frame(HEADERS, WHOLE, 1, c.block("/crew/hang")), frame(DATA, END_STREAM, 1, b"x")])
sends("5.1 HEADERS on a half-closed stream", stream_error(CLOSED), lambda c: [frame(HEADERS, WHOLE, 1, c.block("/crew/hang")), frame(HEADERS, WHOLE, 1, c.block())])
sends("5.1 CONTINUATION on a half-closed stream", connection_error(PROTOCOL), lambda c: [frame(HEADERS, WHOLE, 1, c.block("/crew/hang")), frame(CONTINUATION, END_HEADERS, 1, b"")])
sends("5.1 HEADERS on a closed stream", connection_error(CLOSED) + stream_error(CLOSED) + connection_error(PROTOCOL), lambda c: [frame(HEADERS, WHOLE, 1, c.block())], after=True)
sends("5.1 DATA on a closed stream", stream_error(CLOSED), lambda c: [frame(DATA, END_STREAM, 1, b"x")], after=True)
sends("5.1 CONTINUATION on a closed stream", connection_error(PROTOCOL) + connection_error(CLOSED), lambda c: [frame(CONTINUATION, END_HEADERS, 1, b"")], after=True)
sends("5.1.1 a stream of an even number", connection_error(PROTOCOL), lambda c: [frame(HEADERS, WHOLE, 2, c.block())], stream=2)
sends("5.1.1 a stream of a lower number", connection_error(PROTOCOL) + connection_error(CLOSED) + stream_error(CLOSED), lambda c: [frame(HEADERS, WHOLE, 5, c.block("/crew/hang")), frame(HEADERS, WHOLE, 3, c.block())], stream=3)


@rule("5.1.2 more streams than were allowed", *stream_error("REFUSED_STREAM"), *stream_error(PROTOCOL))
def _():
    connection, allowed = Connection(), None
    for kind, flags, _, payload in connection.frames():
        if kind == SETTINGS and not flags & ACK:
            told = dict(struct.unpack(">HI", payload[n : n + 6]) for n in range(0, len(payload), 6))
            allowed = told[3]
            break
    for number in range(allowed + 1):
        connection.ask(1 + 2 * number, path="/crew/hang")
    return connection.verdict(1 + 2 * allowed)


@rule("5.1 a stream that was cancelled is over, and the connection lives", "lives")
def _():
    return Connection().ask(path="/crew/hang").send(reset(1), window(1, 9)).lives()


@rule("5.3 priorities are passed over", "status 200")
def _():
    connection = Connection()
    priority = struct.pack(">IB", 0, 255)
    connection.send(frame(PRIORITY, 0, 3, priority))
    return connection.send(frame(HEADERS, WHOLE | PRIORITIZED, 1, priority + connection.block())).verdict()


@rule("5.3.1 a stream that depends on itself", *MALFORMED, "status 200")
def _():
    connection = Connection()
    itself = struct.pack(">IB", 1, 255)
    return connection.send(frame(HEADERS, WHOLE | PRIORITIZED, 1, itself + connection.block())).verdict()


@rule("5.4.1 after a connection error the connection is closed", "closed")
def _():
    connection = Connection().send(frame(DATA, 0, 0, b"x"))
    for _ in connection.frames():
        pass
    return connection.ended


# 6: each kind of frame.
sends("6.1 DATA on stream 0", connection_error(PROTOCOL), lambda c: [frame(DATA, 0, 0, b"x")])
sends("6.1 DATA padded beyond its end", connection_error(PROTOCOL), lambda c: [frame(HEADERS, END_HEADERS, 1, c.block(method="POST", path="/crew/begun")), frame(DATA, PADDED | END_STREAM, 1, b"\x05abc")])
sends("6.1 DATA with padding", ("status 200",), lambda c: [frame(HEADERS, END_HEADERS, 1, c.block(method="POST")), frame(DATA, PADDED | END_STREAM, 1, b"\x02abc\0\0")])
sends("6.2 HEADERS on stream 0", connection_error(PROTOCOL), lambda c: [frame(HEADERS, WHOLE, 0, c.block())])
sends("6.2 HEADERS padded beyond its end", connection_error(PROTOCOL), lambda c: [frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + c.block())])
sends("6.2 HEADERS with padding", ("status 200",), lambda c: [frame(HEADERS, WHOLE | PADDED, 1, b"\x03" + c.block() + bytes(3))])
sends("6.3 PRIORITY on stream 0", connection_error(PROTOCOL), lambda c: [frame(PRIORITY, 0, 0, struct.pack(">IB", 0, 1))])
sends("6.3 PRIORITY of another length", stream_error(SIZE), lambda c: [frame(HEADERS, END_HEADERS, 1, c.block("/crew/hang", method="POST")), frame(PRIORITY, 0, 1, bytes(4))])
sends("6.4 RST_STREAM on stream 0", connection_error(PROTOCOL), lambda c: [reset(0)])
sends("6.4 RST_STREAM of another length", connection_error(SIZE), lambda c: [frame(HEADERS, END_HEADERS, 1, c.block("/crew/hang", method="POST")), frame(RST_STREAM, 0, 1, bytes(3))])
sends("6.5 an acknowledgement with settings", connection_error(SIZE), lambda c: [frame(SETTINGS, ACK, 0, bytes(6))])
sends("6.5 SETTINGS on a stream", connection_error(PROTOCOL), lambda c: [frame(SETTINGS, 0, 1, b"")])
sends("6.5 SETTINGS of another length", connection_error(SIZE), lambda c: [frame(SETTINGS, 0, 0, bytes(5))])
for name, value, code in ((2, 2, PROTOCOL), (4, 1 << 31, FLOW), (5, 16383, PROTOCOL), (5, 1 << 24, PROTOCOL)):
    sends(f"6.5.2 setting {name} of {value}", connection_error(code), lambda c, n=name, v=value: [settings((n, v))])
sends("6.5.2 an unknown setting is passed over", ("status 200",), lambda c: [settings((0xFF, 1)), frame(HEADERS, WHOLE, 1, c.block())])


@rule("6.5.3 settings are acknowledged", "acknowledged")
def _():
    connection = Connection().send(settings((1, 0)))
    seen = sum(1 for _ in zip(range(2), (1 for k, f, *_ in connection.frames() if k == SETTINGS and f & ACK)))
    return "acknowledged" if seen == 2 else connection.ended


sends("6.6 PUSH_PROMISE of a client", connection_error(PROTOCOL), lambda c: [frame(HEADERS, END_HEADERS, 1, c.block("/crew/hang", method="POST")), frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2) + c.block())])
sends("6.7 PING on a stream", connection_error(PROTOCOL), lambda c: [frame(PING, 0, 1, bytes(8))])
sends("6.7 PING of another length", connection_error(SIZE), lambda c: [frame(PING, 0, 0, bytes(6))])


@rule("6.7 a ping comes back, and an answer to none is passed over", "lives")
def _():
    return Connection().send(frame(PING, ACK, 0, b"nobody's")).lives()


sends("6.8 GOAWAY on a stream", connection_error(PROTOCOL), lambda c: [frame(GOAWAY, 0, 1, bytes(8))])
sends("6.9 a window of the connection larger by 0", connection_error(PROTOCOL), lambda c: [window(0, 0)])
sends("6.9 a window of a stream larger by 0", stream_error(PROTOCOL), lambda c: [frame(HEADERS, END_HEADERS, 1, c.block("/crew/hang", method="POST")), window(1, 0)])
sends("6.9 WINDOW_UPDATE of another length", connection_error(SIZE), lambda c: [frame(WINDOW_UPDATE, 0, 0, bytes(3))])
sends("6.9.1 a window of the connection over 2^31-1", connection_error(FLOW), lambda c: [window(0, (1 << 31) - 1), window(0, (1 << 31) - 1)])
sends("6.9.1 a window of a stream over 2^31-1", stream_error(FLOW), lambda c: [frame(HEADERS, END_HEADERS, 1, c.block("/crew/hang", method="POST")), window(1, (1 << 31) - 1), window(1, (1 << 31) - 1)])


def lengths(connection, until):
    """The lengths of DATA on stream 1 until so much came."""
    found = []
    for kind, flags, stream, payload in connection.frames():
        if kind == DATA and stream == 1:
            found.append(len(payload))
            if sum(found) >= until or flags & END_STREAM:
                break
    return found


@rule("6.9.1 an answer keeps to the stream's window", "held")
def _():
    connection = Connection(first=settings((4, 1))).ask(path="/crew/status/200")
    first = lengths(connection, 1)
    alive = connection.lives()
    rest = lengths(connection.send(window(1, 100)), 3)
    return "held" if (first, alive, sum(rest)) == ([1], "lives", 3) else f"{first} {alive} {rest}"


@rule("6.9.2 a window may become negative", "held")
def _():
    connection = Connection(first=settings((4, 3))).ask(path="/crew/bytes/10")
    first = lengths(connection, 3)
    connection.send(settings((4, 0)), window(1, 3))
    alive = connection.lives()
    rest = lengths(connection.send(window(1, 7)), 7)
    return "held" if (sum(first), alive, sum(rest)) == (3, "lives", 7) else f"{first} {alive} {rest}"


sends("6.9.2 a setting takes a window over 2^31-1", connection_error(FLOW) + stream_error(FLOW), lambda c: [frame(HEADERS, END_HEADERS, 1, c.block("/crew/hang", method="POST")), window(1, (1 << 31) - 65536), settings((4, (1 << 31) - 1))])


def beyond(windows):
    """More DATA than windows allow, to somebody who takes none of it."""
    connection = Connection()
    streams = [1 + 2 * number for number in range(windows)]
    for stream in streams:
        connection.post(stream, path="/stalled/upload")
    for _ in range(2000):
        connection.send(*(frame(DATA, 0, stream, bytes(16384)) for stream in streams))
        connection.socket.setblocking(False)
        try:
            if connection.socket.recv(1, socket.MSG_PEEK) == b"":
                break
        except BlockingIOError:
            pass
        except OSError:
            break
        finally:
            connection.socket.settimeout(20)
    return connection.verdict(streams[-1])


RULES.append(("6.9.1 DATA beyond a stream's window", stream_error(FLOW), lambda: beyond(1)))
RULES.append(("6.9.1 DATA beyond the connection's window", stream_error(FLOW), lambda: beyond(8)))
sends("6.10 CONTINUATION after the end of a block", connection_error(PROTOCOL), lambda c: [frame(HEADERS, END_HEADERS, 1, c.block("/crew/hang", method="POST")), frame(CONTINUATION, END_HEADERS, 1, b"")])
sends("6.10 CONTINUATION on stream 0", connection_error(PROTOCOL), lambda c: [frame(HEADERS, END_STREAM, 1, c.block()), frame(CONTINUATION, END_HEADERS, 0, b"")])
sends("6.10 CONTINUATION behind DATA", connection_error(PROTOCOL), lambda c: [frame(HEADERS, END_HEADERS, 1, c.block(method="POST", path="/crew/begun")), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, b"")])


@rule("6.10 a block in many pieces is one", "status 200")
def _():
    connection = Connection()
    block = connection.block()
    pieces = [block[at : at + 100] for at in range(0, len(block), 100)]
    connection.send(frame(HEADERS, END_STREAM, 1, pieces[0]))
    for piece in pieces[1:]:
        connection.send(frame(CONTINUATION, 0, 1, piece))
    return connection.send(frame(CONTINUATION, END_HEADERS, 1, b"")).verdict()


# 8: requests.
def malformed(name, **how):
    body = how.pop("body", None)
    # What is wrong with a body shows when its head has gone up.
    how.setdefault("path", "/crew/refused" if body is None else "/crew/begun")

    def run():
        connection = Connection()
        if body is None:
            connection.ask(**how)
        else:
            connection.post(**how).send(*(frame(DATA, END_STREAM if piece is body[-1] else 0, 1, piece) for piece in body))
        return connection.verdict()

    RULES.append((name, MALFORMED, run))


malformed("8.2.1 a name in upper case", more=[("X-Upper", "1")])
malformed("8.2.1 a name with a space", more=[("x a", "1")])
malformed("8.2.1 a name with a colon", more=[("x:a", "1")])
malformed("8.2.1 a name of nothing", more=[("", "1")])
malformed("8.2.1 a value with a line end", more=[("x-a", "1\r\nx-b: 2")])
malformed("8.2.1 a value with NUL", more=[("x-a", "1\0")])
for name in ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"):
    malformed(f"8.2.2 {name}", more=[(name, "chunked" if name.startswith("t") else "close")])
malformed("8.2.2 TE other than trailers", more=[("te", "trailers, deflate")])
malformed("8.3 an unknown pseudo-header", more=[], pseudo=[*PSEUDO, (":test", "1")])
malformed("8.3 a pseudo-header of answers", more=[], pseudo=[*PSEUDO, (":status", "200")])
malformed("8.3 a pseudo-header behind others", more=[(":authority", "y")], pseudo=PSEUDO[:2])
malformed("8.3.1 an empty path", path="")
malformed("8.3.1 no path", path=None)
malformed("8.3.1 a path that does not begin with a slash", path="crew/refused")
malformed("8.3.1 no method", pseudo=PSEUDO[1:])
malformed("8.3.1 no scheme", pseudo=[PSEUDO[0], PSEUDO[2]])
for number, twice in enumerate((":method", ":scheme", ":authority")):
    malformed(f"8.3.1 {twice} twice", pseudo=[*PSEUDO, PSEUDO[number]])
malformed("8.3.1 :path twice", pseudo=[*PSEUDO, (":path", "/crew/x")])
malformed("8.3.1 another Host than :authority", more=[("host", "y")])
malformed("8.1.1 more DATA than content-length", more=[("content-length", "1")], body=[b"ab"])
malformed("8.1.1 less DATA than content-length", more=[("content-length", "9")], body=[b"ab"])
malformed("8.1.1 less DATA than content-length in pieces", more=[("content-length", "9")], body=[b"ab", b"cd"])
malformed("8.1.1 two content-lengths", more=[("content-length", "2"), ("content-length", "3")], body=[b"ab"])
malformed("8.1.1 a content-length that is no number", more=[("content-length", "+2")], body=[b"ab"])


def trailers(fields, flags=WHOLE):
    connection = Connection().post().send(frame(DATA, 0, 1, b"ab"))
    return connection.send(frame(HEADERS, flags, 1, connection.encoder.encode(fields))).verdict()


RULES.append(("8.1 trailers are taken", ("status 200",), lambda: trailers([("x-sum", "7")])))
RULES.append(("8.1 trailers that are not the end", MALFORMED, lambda: trailers([("x-sum", "7")], END_HEADERS)))
# The codec drops these fields instead of refusing the request: they go nowhere.
RULES.append(("8.1 a pseudo-header among trailers", (*MALFORMED, "status 200"), lambda: trailers([(":path", "/")])))
RULES.append(("8.1 a connection header among trailers", (*MALFORMED, "status 200"), lambda: trailers([("connection", "close")])))


@rule("8.5 CONNECT", *MALFORMED, "status 405", "status 501")
def _():
    connection = Connection()
    return connection.send(frame(HEADERS, WHOLE, 1, connection.encoder.encode([(":method", "CONNECT"), (":authority", "127.0.0.1:80")]))).verdict()


@rule("8.1 an answer before the body's end leaves the connection usable", "lives")
def _():
    connection = Connection().post(path="/nowhere/x")
    said = connection.verdict()
    return connection.lives() if said.startswith("status") else said


# RFC 7541.
hpack = lambda *block: (lambda c: [frame(HEADERS, WHOLE, 1, bytes(block))])
sends("HPACK 2.3.3 an index of nothing", connection_error(COMPRESSION), hpack(0xC6))
sends("HPACK 6.1 the index 0", connection_error(COMPRESSION), hpack(0x80))
sends("HPACK 2.3.3 a name's index of nothing", connection_error(COMPRESSION), hpack(0x40 | 0x3F, 0x20, 1, 0x61))
sends("HPACK 4.2 a table size behind fields", connection_error(COMPRESSION), lambda c: [frame(HEADERS, WHOLE, 1, c.block() + b"\x20")])
sends("HPACK 6.3 a table larger than allowed", connection_error(COMPRESSION), hpack(0x3F, 0xE2, 0x1F))
sends("HPACK 5.2 Huffman padding of 8 bits", connection_error(COMPRESSION), lambda c: [frame(HEADERS, WHOLE, 1, c.block() + b"\0\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff")])
sends("HPACK 5.2 Huffman padding of zeros", connection_error(COMPRESSION), lambda c: [frame(HEADERS, WHOLE, 1, c.block() + b"\0\x85\xf2\xb2\x4a\x87\xff\x83\x49\x50\x90")])
sends("HPACK 5.2 Huffman with EOS", connection_error(COMPRESSION), lambda c: [frame(HEADERS, WHOLE, 1, c.block() + b"\0\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f")])
sends("HPACK 5.1 an integer without end", connection_error(COMPRESSION), hpack(0xFF, *[0xFF] * 20))
sends("HPACK 5.2 a string longer than the block", connection_error(COMPRESSION), hpack(0x40, 0x7E, 0x61))

for name, fine, function in RULES:
    answered = function()
    held = answered in fine
    failed += not held
    print("ok" if held else "FAILED", f"{name}: {answered}", "" if held else f"not one of {fine}", flush=True)
sys.exit(failed > 0)
