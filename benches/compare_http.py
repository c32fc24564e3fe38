"""Measures small JSON answers (wrk), a body of 1 GB (curl) and the delay of server-sent events over several
ways to one nginx, round by round in turn; prints medians and ratios as Markdown. Run by scripts/bench-http.

direct: nginx serves. nginx: another nginx before it (proxy_pass, kept connections, no access log).
portcullis: the gateway with its default recording. masked: the same with a mask of two fields and three
patterns, which looks into every answer; the 1 GB are text then, as they are for the others."""

import argparse
import os
import pathlib
import platform
import re
import socket
import statistics
import subprocess
import sys
import threading
import time

from servers import RELEASE, Bench, free_port, token, wait_for

WAYS = ("direct", "nginx", "portcullis", "masked")
CONNECTIONS = (1, 16, 256)
JSON = '{"id": 7, "customer": {"name": "Alice", "city": "Bern", "tags": ["a", "b"]}, "lines": ' \
    '[{"sku": "X-1", "count": 2, "price": 12.5}, {"sku": "X-2", "count": 1, "price": 99}], "total": 124}'
BULK_BYTES = 1 << 30
EVENTS, EVENT_EVERY = 200, 0.01
MASKS = """
[[mask]]
name = "pii"
targets = ["*"]
fields = ["customer.ssn", "**.card_number"]
patterns = ["email", "credit-card", "us-ssn"]
"""


def main() -> None:
    arguments = parse()
    raw, figures = [], {}

    def note(case: str, way: str, **measured) -> None:
        figures.setdefault(case, {}).setdefault(way, []).append(measured)
        told = " ".join(f"{name}={value:.6g}" for name, value in measured.items())
        raw.append(f"{case:24} {way:10} {told}")
        print(raw[-1], file=sys.stderr, flush=True)

    with Bench() as bench:
        events = serve_events()
        origin = nginx(bench, "origin", f"""
location = /small {{ default_type application/json; return 200 '{JSON}'; }}
location = /large {{ default_type text/plain; alias {large_file(bench)}; }}""")
        start = {
            "direct": lambda: Way(f"http://127.0.0.1:{origin}", f"http://127.0.0.1:{events}"),
            "nginx": lambda: proxied(bench, origin, events),
            "portcullis": lambda: gateway(bench, "portcullis", origin, events, ""),
            "masked": lambda: gateway(bench, "masked", origin, events, MASKS),
        }
        ways = {way: start[way]() for way in arguments.ways}
        for round_number in range(arguments.rounds):
            raw.append(f"# round {round_number + 1}; load before it {os.getloadavg()[0]:.1f}")
            for connections in CONNECTIONS:
                for name, way in ways.items():
                    measured = wrk(way, connections, arguments.seconds)
                    note(f"JSON, {connections} at once", name, **measured)
            for name, way in ways.items():
                note("1 GB", name, seconds=bulk(way))
            for name, way in ways.items():
                note("events", name, **delays(way))
    tables(arguments, figures, raw)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each run of wrk")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--out", type=pathlib.Path, help="where tables and raw figures go")
    return parser.parse_args()


class Way:
    """Where to ask, and with what."""

    def __init__(self, base, events, bearer=None):
        self.base, self.events = base, events
        self.header = f"Authorization: Bearer {bearer}" if bearer else "X-None: 1"


def large_file(bench) -> pathlib.Path:
    """Text that compresses about as well as records do."""
    path = bench.directory / "large"
    lines = "".join(f"{n};{n * 7919 % 104729:x};customer {n % 997};{n * 31 % 1000}.50\n" for n in range(40_000))
    block = lines.encode()[: 1 << 20]
    with open(path, "wb") as file:
        for _ in range(BULK_BYTES // len(block)):
            file.write(block)
    path.chmod(0o644)
    bench.directory.chmod(0o755)
    return path


def nginx(bench, name, locations, more="") -> int:
    port = free_port()
    folder = bench.directory / name
    folder.mkdir()
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    configuration = bench.write(f"{name}.conf", f"""
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes auto; user root;
events {{ worker_connections 2048; }}
http {{ access_log off; sendfile on; keepalive_requests 100000000; {temporary}
{more}
server {{ listen 127.0.0.1:{port} backlog=1024; {locations} }} }}
""")
    bench.launch("nginx", "-p", folder, "-c", configuration, stderr=subprocess.DEVNULL)
    wait_for(lambda: listens(port))
    return port


def proxied(bench, origin, events) -> Way:
    port = nginx(bench, "proxy", """
proxy_http_version 1.1; proxy_set_header Connection ""; proxy_max_temp_file_size 0;
location / { proxy_pass http://origin; }
location /events { proxy_buffering off; proxy_pass http://events; }""", f"""
upstream origin {{ server 127.0.0.1:{origin}; keepalive 256; keepalive_requests 100000000; }}
upstream events {{ server 127.0.0.1:{events}; }}""")
    return Way(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}")


def gateway(bench, name, origin, events, sections) -> Way:
    program = RELEASE / "portcullis"
    issuer_file = bench.write(f"{name}-issuer.toml", """
audiences = ["portcullis"]
token_seconds = 14400
[[client]]
id = "agent"
secret = "agent-secret"
grants = ["client_credentials"]
groups = ["agents"]
""")
    process = bench.launch(program, "issuer", "--config", issuer_file, "--listen", "127.0.0.1:0",
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    issuer, port = process.stdout.readline().strip(), free_port()
    targets = "".join(f"""
[[target]]
name = "{target}"
protocol = "http"
url = "http://127.0.0.1:{at}"
""" for target, at in (("origin", origin), ("events", events)))
    configuration = bench.write(f"{name}.toml", f"""
[server]
data_dir = "{bench.directory}/{name}"
[listen]
http = "127.0.0.1:{port}"
[[issuer]]
name = "dev"
url = "{issuer}"
audiences = ["portcullis"]
[[access]]
groups = ["agents"]
targets = ["*"]
{targets}{sections}
""")
    log = open(bench.directory / f"{name}.log", "wb")
    bench.launch(program, "serve", "--config", configuration, stderr=log)
    wait_for(lambda: listens(port))
    base = f"http://127.0.0.1:{port}"
    return Way(f"{base}/origin", f"{base}/events", token(issuer))


def listens(port) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def wrk(way, connections, seconds) -> dict:
    threads = str(min(connections, 2))
    said = subprocess.run(
        ["wrk", "--latency", "-t", threads, "-c", str(connections), "-d", f"{seconds}s", "-H", way.header, f"{way.base}/small"],
        check=True, text=True, capture_output=True,
    ).stdout
    if re.search("Non-2xx|Socket errors", said):
        raise SystemExit(said)
    number, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", said).groups()
    p50 = float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
    return {"rps": float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]), "p50_us": p50}


def bulk(way) -> float:
    told = subprocess.run(
        ["curl", "-sS", "-o", "/dev/null", "-w", "%{size_download} %{time_total}", "-H", way.header, f"{way.base}/large"],
        check=True, text=True, capture_output=True,
    ).stdout
    size, seconds = told.split()
    assert int(size) == BULK_BYTES, told
    return float(seconds)


def serve_events() -> int:
    """A service that sends the time, over and over."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(client):
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while b"\r\n\r\n" not in client.recv(65536):
                pass
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            for _ in range(EVENTS):
                time.sleep(EVENT_EVERY)
                client.sendall(b"data: %d\n\n" % time.monotonic_ns())

    def accept():
        while True:
            threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def delays(way) -> dict:
    """From sending an event to having it, in microseconds; in a process of its own."""
    host, _, path = way.events.removeprefix("http://").partition("/")
    path = f"/{path}/events" if path else "/events"
    program = """
import socket, sys, time
host, port = sys.argv[1].split(":")
stream = socket.create_connection((host, int(port)))
stream.sendall(f"GET {sys.argv[2]} HTTP/1.1\\r\\nHost: x\\r\\n{sys.argv[3]}\\r\\nConnection: close\\r\\n\\r\\n".encode())
while data := stream.recv(65536):
    now = time.monotonic_ns()
    for line in data.split(b"\\n"):
        if line.startswith(b"data: "):
            print(now - int(line[6:]))
"""
    said = subprocess.run([sys.executable, "-c", program, host, path, way.header], check=True, text=True, capture_output=True).stdout
    times = sorted(int(line) / 1e3 for line in said.split())
    assert len(times) == EVENTS, said
    return {"event_p50_us": statistics.median(times), "event_p99_us": times[EVENTS * 99 // 100]}


def tables(arguments, figures, raw) -> None:
    ways = list(arguments.ways)
    versions = subprocess.run(["nginx", "-v"], text=True, capture_output=True).stderr.strip()
    out = [
        f"{arguments.rounds} rounds of {arguments.seconds} s; {os.cpu_count()} cores of {platform.machine()},"
        f" load at the end {os.getloadavg()[0]:.1f}, {versions}",
        "",
    ]

    def table(title, key, unit, more_is_better, bases) -> None:
        cases = [case for case, by in figures.items() if key in next(iter(by.values()))[0]]
        compared = [(w, b) for w in ("portcullis", "masked") for b in bases if w in ways and b in ways]
        heads = [title, *(f"{way}, {unit}" for way in ways), *(f"{w} of {b}" for w, b in compared)]
        out.append("| " + " | ".join(heads) + " |")
        out.append("| --- |" + " ---: |" * (len(heads) - 1))
        for case in cases:
            median = {w: statistics.median(run[key] for run in figures[case][w]) for w in ways}
            cells = [f"{median[w]:,.3g}" if unit == "s" else f"{median[w]:,.0f}" for w in ways]
            for w, b in compared:
                ratio = median[w] / median[b]
                cells.append(f"{ratio if more_is_better else 1 / ratio:.2f}")
            out.append(f"| {case} | " + " | ".join(cells) + " |")
        out.append("")

    table("requests", "rps", "1/s", True, ("nginx",))
    table("latency, p50", "p50_us", "µs", False, ())
    table("bulk", "seconds", "s", False, ("direct", "nginx"))
    table("delay of an event, p50", "event_p50_us", "µs", False, ())
    table("delay of an event, p99", "event_p99_us", "µs", False, ())
    text = "\n".join(out)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n" + "\n".join(raw) + "\n")


main()
