"""The ways to one PostgreSQL server that the benchmark compares: none, PgBouncer, a plain byte relay,
Portcullis. Each is started from scratch in a directory that goes at the end."""

import base64
import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
TARGET = "bench"
PASSWORD = "bench-password"


def postgres_program(name: str) -> str:
    versions = pathlib.Path("/usr/lib/postgresql").glob("*/bin")
    newest = max(versions, key=lambda path: int(path.parent.name), default=None)
    return str(newest / name) if newest else name


class Bench(contextlib.ExitStack):
    """Everything that is started, and stopped in the opposite order."""

    def __enter__(self):
        super().__enter__()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-bench-"))
        self.callback(shutil.rmtree, self.directory)
        self.metrics = {}
        # PostgreSQL and PgBouncer refuse to run as root.
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user:
            shutil.chown(self.directory, self.user)
        self.certificate, self.key = self._make_certificate()
        return self

    def launch(self, *command, user=None, **options) -> subprocess.Popen:
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, user=user, group=user,
            extra_groups=[] if user else None, cwd=self.directory, **options,
        )
        self.callback(process.wait)
        self.callback(process.terminate)
        return process

    def write(self, name: str, text: str) -> pathlib.Path:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        if self.user:
            shutil.chown(path, self.user)
        return path

    def _make_certificate(self):
        certificate, key = self.directory / "tls.crt", self.directory / "tls.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
            check=True, stderr=subprocess.DEVNULL,
        )
        key.chmod(0o600)
        if self.user:
            shutil.chown(key, self.user)
        return certificate, key

    def postgres(self) -> dict:
        """The server, with pgbench's tables at scale 10; returns how to reach it."""
        data, port = self.directory / "data", free_port()
        password = self.write("password", PASSWORD)
        subprocess.run(
            [postgres_program("initdb"), "-D", data, "-U", "bench", "-A", "scram-sha-256",
             f"--pwfile={password}", "--no-sync", "--encoding=UTF8", "--locale=C"],
            check=True, stdout=subprocess.DEVNULL, cwd=self.directory, user=self.user,
            group=self.user, extra_groups=[] if self.user else None,
        )
        settings = {
            "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "",
            "fsync": "off", "shared_buffers": "512MB", "max_connections": 100, "ssl": "on",
            "ssl_cert_file": self.certificate, "ssl_key_file": self.key,
        }
        options = [f"-c{name}={value}" for name, value in settings.items()]
        log = open(self.directory / "postgres.log", "wb")
        server = self.launch(postgres_program("postgres"), "-D", data, *options, user=self.user,
                             stdout=log, stderr=log)
        # SIGINT: do not wait for sessions.
        self.callback(server.send_signal, 2)
        direct = environment(port, database="postgres")
        wait_for(lambda: answers(direct))
        run("pgbench", "-i", "-q", "-s", "10", env=direct, stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL)
        run("psql", "-qc", "vacuum analyze", env=direct)
        return direct

    def pgbouncer(self, direct: dict) -> dict:
        port = free_port()
        users = self.write("users.txt", f'"bench" "{PASSWORD}"\n')
        configuration = self.write("pgbouncer.ini", f"""
[databases]
{TARGET} = host=127.0.0.1 port={direct["PGPORT"]} dbname=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = session
default_pool_size = 40
max_client_conn = 200
server_tls_sslmode = disable
client_tls_sslmode = allow
client_tls_cert_file = {self.certificate}
client_tls_key_file = {self.key}
log_connections = 0
log_disconnections = 0
""")
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        self.launch(program, "-q", configuration, user=self.user, stderr=subprocess.DEVNULL)
        reached = environment(port)
        wait_for(lambda: answers(reached))
        return reached

    def relay(self, direct: dict) -> dict:
        program = RELEASE / "examples" / "relay"
        process = self.launch(program, "127.0.0.1:0", f"127.0.0.1:{direct['PGPORT']}",
                              stdout=subprocess.PIPE, text=True)
        port = process.stdout.readline().strip().rsplit(":", 1)[1]
        return environment(port, database="postgres")

    def unindexed(self, direct: dict) -> dict:
        """The same gateway, but nothing is written into its index: there is no database."""
        return self.portcullis(direct, "unindexed", '[database]\nurl = "postgres://127.0.0.1:9/none"')

    def ruled(self, direct: dict) -> dict:
        """The same gateway with twenty rules, none of which matches what pgbench does."""
        return self.portcullis(direct, "ruled", (HERE / "rules.toml").read_text())

    def masked(self, direct: dict) -> dict:
        """The same twenty rules, and five masks: on columns of other tables, on one of the table
        that is read but not of the column, and on patterns, which look at every row."""
        sections = (HERE / "rules.toml").read_text() + (HERE / "masks.toml").read_text()
        return self.portcullis(direct, "masked", sections)

    def portcullis(self, direct: dict, name="portcullis", sections="") -> dict:
        """The gateway with its default recording, and a development issuer to get tokens from."""
        program = RELEASE / "portcullis"
        issuer_file = self.write(f"{name}-issuer.toml", """
audiences = ["portcullis"]
token_seconds = 14400
[[client]]
id = "agent"
secret = "agent-secret"
grants = ["client_credentials"]
groups = ["agents"]
""")
        process = self.launch(program, "issuer", "--config", issuer_file,
                              "--listen", "127.0.0.1:0", stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
        issuer = process.stdout.readline().strip()
        self.write("target-password", PASSWORD)
        metrics = free_port()
        configuration = self.write(f"{name}.toml", f"""
[server]
data_dir = "{self.directory}/{name}"
[listen]
postgres = "127.0.0.1:0"
metrics = "127.0.0.1:{metrics}"
[tls]
certificate = "{self.certificate}"
private_key = "{self.key}"
[[issuer]]
name = "dev"
url = "{issuer}"
audiences = ["portcullis"]
[[target]]
name = "{TARGET}"
protocol = "postgres"
address = "127.0.0.1:{direct["PGPORT"]}"
database = "postgres"
tls = "disable"
credential = {{ user = "bench", password = {{ file = "{self.directory}/target-password" }} }}
[[access]]
groups = ["agents"]
targets = ["*"]
{sections}
""")
        log = self.directory / f"{name}.log"
        process = self.launch(program, "serve", "--config", configuration, "--log-format", "json",
                              stderr=open(log, "wb"))

        def address():
            said = log.read_text()
            if process.poll() is not None:
                raise SystemExit(said)
            for line in said.splitlines():
                if '"listening"' in line and '"postgres"' in line:
                    event = json.loads(line)
                    return event.get("fields", event)["address"]

        port = wait_for(address).rsplit(":", 1)[1]
        self.metrics[name] = f"http://127.0.0.1:{metrics}/metrics"
        return environment(port, password=token(issuer))

    def figure(self, name: str, figure: str) -> float:
        """One of a gateway's own figures."""
        page = urllib.request.urlopen(self.metrics[name], timeout=10).read().decode()
        return next(float(line.split()[1]) for line in page.splitlines()
                    if line.startswith(f"{figure} "))


def token(issuer: str) -> str:
    form = {"grant_type": "client_credentials", "audience": "portcullis"}
    request = urllib.request.Request(
        f"{issuer}/token", data=urllib.parse.urlencode(form).encode()
    )
    login = base64.b64encode(b"agent:agent-secret").decode()
    request.add_header("Authorization", f"Basic {login}")
    return json.load(urllib.request.urlopen(request, timeout=10))["access_token"]


def environment(port, database=TARGET, password=PASSWORD) -> dict:
    """libpq's environment for one way to the server."""
    return {
        "PATH": os.environ["PATH"], "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "bench",
        "PGDATABASE": database, "PGPASSWORD": password, "PGSSLMODE": "disable",
        "PGCONNECT_TIMEOUT": "10",
    }


def run(program: str, *arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run([postgres_program(program), *arguments], check=True, text=True,
                          stdin=subprocess.DEVNULL, **options)


def answers(env) -> bool:
    return subprocess.run([postgres_program("pg_isready"), "-q"], env=env).returncode == 0


def wait_for(condition, seconds=60):
    """Waits until a check returns something true, and returns that."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if result := condition():
            return result
        time.sleep(0.02)
    raise SystemExit("waited too long for a server to start")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
