"""Measures OpenSSH's client against OpenSSH's server, directly and through the gateway, round by round in
turn; prints medians and ratios as Markdown. Run by scripts/bench-ssh.

Bulk is `cat` of a file each way, with AES-GCM, at a session that stands already. An exec of its own is a
connection each; a shared one is a channel of a connection that stands (ControlMaster), and behind
the gateway a connection to the server that the command before it left.

Throughput on few cores is what all programs together take of them, so processor time is measured too: of
client and server, and of the gateway."""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

from servers import RELEASE, Bench, free_port, token, wait_for

WAYS = ("direct", "portcullis")
TICKS = os.sysconf("SC_CLK_TCK")


class Way:
    """How ssh is run for one of the ways."""

    def __init__(self, directory, name, port, user, key, known_hosts):
        self.base = [
            "ssh", "-F", "none", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes",
            "-c", "aes256-gcm@openssh.com", "-i", str(key), "-p", str(port),
        ]
        self.to = f"{user}@127.0.0.1"
        self.socket = directory / f"{name}.sock"
        # Its processes: of client and server, and of the gateway where there is one.
        self.ends, self.between = [], []

    def command(self, line, shared=False) -> list:
        share = ["-o", f"ControlPath={self.socket}"] if shared else []
        return [*self.base, *share, self.to, line]

    def stand(self, bench) -> None:
        """A connection that others share."""
        master = [*self.base, "-M", "-N", "-S", str(self.socket), self.to]
        process = subprocess.Popen(master, stdin=subprocess.DEVNULL)
        bench.callback(process.wait)
        bench.callback(process.terminate)
        wait_for(self.socket.exists)
        self.ends.append(process.pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--execs", type=int, default=40, help="of each kind in a round")
    parser.add_argument("--out", type=pathlib.Path, help="where tables and raw figures go")
    arguments = parser.parse_args()
    raw, figures = [], {}

    def note(case, way, value) -> None:
        figures.setdefault(case, {}).setdefault(way, []).append(value)
        raw.append(f"{case:28} {way:10} {value:.6g}")
        print(raw[-1], file=sys.stderr, flush=True)

    with Bench() as bench:
        ways = dict(zip(WAYS, start(bench)))
        files = {kind: make(bench, kind, arguments.megabytes) for kind in ("text", "random")}
        for way in ways.values():
            way.stand(bench)
        for number in range(arguments.rounds):
            raw.append(f"# round {number + 1}; load before it {os.getloadavg()[0]:.1f}")
            for kind, file in files.items():
                for out, line in ((True, f"cat {file}"), (False, "cat > /dev/null")):
                    for name, way in ways.items():
                        case = f"{kind} {'out' if out else 'in'}"
                        before = spent(way.ends), spent(way.between)
                        note(f"{case}, MB/s", name, rate(way, line, file, out))
                        gigabytes = file.stat().st_size / 1e9
                        for which, pids, then in zip(("ends", "gateway"), (way.ends, way.between), before):
                            if pids:
                                note(f"{case}, s/GB of {which}", name, (spent(pids) - then) / gigabytes)
            for shared, case in ((False, "exec, a connection each"), (True, "exec, shared")):
                for name, way in ways.items():
                    latency, first = execs(way, arguments.execs, shared)
                    note(f"{case}, ms", name, latency)
                    note(f"first byte, {case[6:]}, ms", name, first)
            for name, way in ways.items():
                note("execs/s, 4 at once", name, together(way, arguments.execs * 2))
    tables(arguments, figures, raw)


def start(bench):
    """The server, and the gateway before it."""
    directory = bench.directory
    os.makedirs("/run/sshd", exist_ok=True)
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    shutil.copy(directory / "user_key.pub", directory / "authorized_keys")
    user = subprocess.run(["id", "-un"], check=True, text=True, capture_output=True).stdout.strip()
    port = free_port()
    host_key = " ".join((directory / "host_key.pub").read_text().split()[:2])
    configuration = bench.write("sshd_config", f"""
ListenAddress 127.0.0.1:{port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
StrictModes no
UsePAM no
UseDNS no
PermitRootLogin yes
SetEnv SHLVL=1
MaxStartups 200
""")
    sshd = bench.launch("/usr/sbin/sshd", "-D", "-e", "-f", configuration, stderr=subprocess.DEVNULL)
    known_hosts = bench.write("known_hosts_direct", f"[127.0.0.1]:{port} {host_key}\n")
    direct = Way(directory, "direct", port, user, directory / "user_key", known_hosts)
    ready = lambda: subprocess.run(direct.command("true"), stderr=subprocess.DEVNULL).returncode == 0
    wait_for(ready)
    through = gateway(bench, port, user, host_key)
    for way in (direct, through):
        way.ends.append(sshd.pid)
    return direct, through


def gateway(bench, port, user, host_key):
    directory, program = bench.directory, RELEASE / "portcullis"
    issuer_file = bench.write("issuer.toml", """
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
    issuer = process.stdout.readline().strip()
    configuration = bench.write("portcullis.toml", f"""
[server]
data_dir = "{directory}/portcullis"
[listen]
ssh = "127.0.0.1:0"
web = "127.0.0.1:0"
[[issuer]]
name = "dev"
url = "{issuer}"
audiences = ["portcullis"]
[[target]]
name = "bench"
protocol = "ssh"
address = "127.0.0.1:{port}"
host_key = "{host_key}"
credential = {{ user = "{user}", private_key = {{ file = "{directory}/user_key" }} }}
[[access]]
groups = ["agents"]
targets = ["*"]
""")
    log = directory / "portcullis.log"
    process = bench.launch(program, "serve", "--config", configuration, "--log-format", "json",
                           stderr=open(log, "wb"))

    def listening():
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        events = [event.get("fields", event) for event in events]
        migrated = any("database migrated" in event.get("message", "") for event in events)
        found = {event["protocol"]: event["address"] for event in events if event.get("message") == "listening"}
        return found if migrated and {"ssh", "web"} <= set(found) else None

    found = wait_for(listening)
    file = bench.write("token", token(issuer))
    subprocess.run([program, "ssh-cert", "--server", f"http://{found['web']}", "--token-file", file,
                    "--out", directory / "agent"], check=True, stdout=subprocess.DEVNULL)
    own = " ".join((directory / "portcullis/ssh_host_ed25519.pub").read_text().split()[:2])
    ssh_port = found["ssh"].rsplit(":", 1)[1]
    known_hosts = bench.write("known_hosts", f"[127.0.0.1]:{ssh_port} {own}\n")
    way = Way(directory, "portcullis", ssh_port, "bench", directory / "agent", known_hosts)
    way.between.append(process.pid)
    return way


def make(bench, kind, megabytes) -> pathlib.Path:
    path = bench.directory / kind
    source = "seq 1 400000000" if kind == "text" else "cat /dev/urandom"
    subprocess.run(f"{source} | head -c {megabytes}000000 > {path}", shell=True, check=True)
    return path


def spent(pids) -> float:
    """Seconds of processor time of processes and all their children so far."""
    ticks = 0
    for pid in pids:
        try:
            # utime, stime, and both of children that ended (proc(5)).
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15])) + spent(children) * TICKS
    return ticks / TICKS


def rate(way, line, file, out) -> float:
    """Megabytes a second, on a connection that stands."""
    with open(file, "rb") as source, open(os.devnull, "wb") as nowhere:
        started = time.monotonic()
        subprocess.run(way.command(line, shared=True), check=True, stdout=nowhere,
                       stdin=subprocess.DEVNULL if out else source)
        return file.stat().st_size / 1e6 / (time.monotonic() - started)


def execs(way, count, shared):
    """Milliseconds to the end and to the first byte of a short command, medians."""
    ends, firsts = [], []
    for _ in range(count):
        started = time.monotonic()
        with subprocess.Popen(way.command("echo x", shared), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE) as process:
            process.stdout.read(1)
            firsts.append(time.monotonic() - started)
            process.stdout.read()
        ends.append(time.monotonic() - started)
        assert process.returncode == 0
    return statistics.median(ends) * 1e3, statistics.median(firsts) * 1e3


def together(way, count) -> float:
    started, running = time.monotonic(), []
    for _ in range(count):
        if len(running) == 4:
            assert running.pop(0).wait() == 0
        command = way.command("true", shared=True)
        running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
    assert all(process.wait() == 0 for process in running)
    return count / (time.monotonic() - started)


def tables(arguments, figures, raw) -> None:
    version = subprocess.run(["ssh", "-V"], text=True, stderr=subprocess.PIPE).stderr.strip()
    median = {case: {way: statistics.median(each) for way, each in by.items()} for case, by in figures.items()}
    processor = {case: median.pop(case) for case in list(median) if "s/GB" in case}
    out = [
        f"{arguments.rounds} rounds, {arguments.megabytes} MB each way, {arguments.execs} execs of each kind;"
        f" {os.cpu_count()} cores of {platform.machine()}, load at the end {os.getloadavg()[0]:.1f}, {version}",
        "",
        "| | direct | portcullis | portcullis of direct |",
        "| --- | ---: | ---: | ---: |",
    ]
    for case, of in median.items():
        ratio = of["portcullis"] / of["direct"]
        out.append(f"| {case} | {of['direct']:.3g} | {of['portcullis']:.3g} | {ratio:.2f} |")
    out += [
        "",
        "| processor time, s for 1 GB | client and server directly | through the gateway | the gateway |",
        "| --- | ---: | ---: | ---: |",
    ]
    for case in (case.removesuffix(" of ends") for case in processor if case.endswith("ends")):
        ends, own = processor[f"{case} of ends"], processor[f"{case} of gateway"]["portcullis"]
        out.append(f"| {case.split(',')[0]} | {ends['direct']:.3g} | {ends['portcullis']:.3g} | {own:.3g} |")
    each, shared = median["exec, a connection each, ms"], median["exec, shared, ms"]
    handshake = each["direct"] - shared["direct"]
    out += ["", f"A handshake costs {handshake:.1f} ms directly. Of direct plus a second handshake the gateway"
            f" takes {each['portcullis'] / (each['direct'] + handshake):.2f} with a connection each and"
            f" {shared['portcullis'] / (shared['direct'] + handshake):.2f} on a shared one.", ""]
    text = "\n".join(out)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n" + "\n".join(raw) + "\n")


main()
