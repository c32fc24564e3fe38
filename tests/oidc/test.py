"""A certified OpenID provider and the gateway: test.py PORTCULLIS. Says what it saw.

Discovery and client credentials, a key that the gateway has not seen yet, device login by
`portcullis login` and by ssh, and a code flow with PKCE. `prepare` installs the provider; sshd is the system's.
"""

import base64
import getpass
import hashlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ROOT = Path(__file__).parents[2]
PROVIDER = ROOT / "target/oidc-provider/provider.mjs"
MAX_WAIT = 60


def main(binary: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="portcullis-oidc-") as parent:
        # The private PostgreSQL's user has to pass through it.
        os.chmod(parent, 0o711)
        folder, port = Path(parent), free_port()
        keys = [new_key("first")]
        with provider(folder, port, keys) as before, host(folder) as target:
            config = configured(folder, port, target)
            with running([binary, "serve", "--config", config], folder / "gateway.log") as gateway:
                web = wait_for("gateway", lambda: listening(folder / "gateway.log", "web"))
                wait_for("index", lambda: httpx.get(f"{web}/readyz").json().get("state") == "current")
                first = machine(binary, config)
                assert asked(web, first) == 200
                say("discovery and client credentials: a machine's token is taken")
                assert asked(web, first[:-6] + "AAAAAA") == 401
                person_by_device(binary, folder, port, web)
                person_by_ssh(folder, listening(folder / "gateway.log", "ssh"))
                person_by_code(port, web)
                assert gateway.poll() is None
                # The provider signs with a key that the gateway has not seen.
                rotated(binary, folder, port, keys, config, web, first, before)
    say("passed")


def machine(binary: Path, config: Path) -> str:
    done = subprocess.run(
        [binary, "token", "--config", config, "--client-id", "crew", "--scope", "sessions",
         "--client-secret-file", config.parent / "secret"],
        capture_output=True, text=True, timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def rotated(binary, folder, port, keys, config, web, first, before) -> None:
    before.terminate()
    before.wait(MAX_WAIT)
    with provider(folder, port, [new_key("second"), *keys]):
        second = machine(binary, config)
        assert header(second)["kid"] == "second" and header(first)["kid"] == "first"
        assert asked(web, second) == 200, "a token of a new key"
        assert asked(web, first) == 200, "a token of the key before it"
        say("rotation: a token of a key that was new is taken at once, one of the key before it still")
        # The same name, and another key.
        forged = signed_by(new_key("second"), second)
        assert asked(web, forged) == 401, "a token of a forged key"


def signed_by(key: dict, model: str) -> str:
    """The claims of a token, signed by a key of our own."""
    signed = model.rsplit(".", 1)[0]
    r, s = decode_dss_signature(key["private"].sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{encoded(r.to_bytes(32) + s.to_bytes(32))}"


def person_by_device(binary: Path, folder: Path, port: int, web: str) -> None:
    home = folder / "home"
    home.mkdir()
    environment = {**os.environ, "XDG_CONFIG_HOME": str(home)}
    environment.pop("PORTCULLIS_TOKEN", None)
    login = subprocess.Popen(
        [binary, "login", "--server", web, "--issuer-url", f"http://127.0.0.1:{port}",
         "--client-id", "portcullis", "--scope", "openid sessions"],
        env=environment, stderr=subprocess.PIPE, text=True,
    )
    said = login.stderr.readline()
    address, code = re.search(r"open (\S+) and enter the code (\S+)", said).groups()
    with Browser() as browser:
        page = browser.get(address)
        page = browser.submit(page, user_code=code)
        page = browser.through(page, "dora")
        assert "success" in page.text.lower(), page.text
    assert login.wait(MAX_WAIT) == 0, login.stderr.read()
    listed = subprocess.run(
        [binary, "session", "list", "--server", web, "--json"],
        env=environment, capture_output=True, text=True, timeout=30,
    )
    assert listed.returncode == 0, listed.stderr
    say("device login: dora's token lists sessions")


def person_by_ssh(folder: Path, address: str) -> None:
    """Keyboard-interactive: ssh shows where to go and the code, and waits."""
    gateway = urlsplit(address)
    key = " ".join((folder / "data/ssh_host_ed25519.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[{gateway.hostname}]:{gateway.port} {key}\n")
    ssh = subprocess.Popen(
        ["ssh", "-F", "none", "-o", "LogLevel=INFO", "-o", f"UserKnownHostsFile={folder / 'known_hosts'}",
         "-o", "StrictHostKeyChecking=yes", "-o", "PreferredAuthentications=keyboard-interactive",
         "-p", str(gateway.port), f"host@{gateway.hostname}", "echo in; exit 7"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    said = ""
    while not (shown := re.search(r"open (\S+)\s+and enter the code (\S+?)\.", said)):
        line = ssh.stderr.readline()
        assert line, said
        said += line
    with Browser() as browser:
        page = browser.get(shown[1])
        page = browser.submit(page, user_code=shown[2])
        page = browser.through(page, "sasha")
        assert "success" in page.text.lower(), page.text
    output, errors = ssh.communicate(timeout=MAX_WAIT)
    assert (output, ssh.returncode) == ("in\n", 7), said + errors
    say("device login by ssh: sasha's command ran")


def person_by_code(port: int, web: str) -> None:
    issuer = f"http://127.0.0.1:{port}"
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
    challenge = encoded(hashlib.sha256(verifier.encode()).digest())
    back = "http://127.0.0.1/callback"
    with Browser() as browser:
        page = browser.get(
            f"{issuer}/auth",
            params={
                "client_id": "portcullis", "response_type": "code", "redirect_uri": back,
                "scope": "openid sessions", "state": state,
                "code_challenge": challenge, "code_challenge_method": "S256",
            },
        )
        page = browser.through(page, "carl")
        returned = parse_qs(urlsplit(browser.left_for).query)
        assert returned["state"] == [state]
        granted = httpx.post(
            f"{issuer}/token",
            data={
                "grant_type": "authorization_code", "code": returned["code"][0],
                "redirect_uri": back, "client_id": "portcullis", "code_verifier": verifier,
            },
        ).json()
    assert asked(web, granted["access_token"]) == 200, granted
    # An ID token says who logged in at the client, and is no key to the gateway.
    assert asked(web, granted["id_token"]) == 401
    say("code flow with PKCE: carl's access token is taken, his ID token is not")


class Browser(httpx.Client):
    """Follows the provider's pages; `left_for` is where it was sent that is not the provider."""

    left_for = ""

    def follow(self, answer: httpx.Response) -> httpx.Response:
        while answer.is_redirect:
            to = answer.next_request.url
            if to.path == "/callback":
                self.left_for = str(to)
                return answer
            answer = self.send_request(answer.next_request)
        return answer

    def send_request(self, request: httpx.Request) -> httpx.Response:
        # With the cookies of now.
        return super().get(request.url)

    def get(self, address: str, **more) -> httpx.Response:
        return self.follow(super().get(address, **more))

    def submit(self, page: httpx.Response, **fields: str) -> httpx.Response:
        form = re.search(r"<form[^>]*action=\"([^\"]+)\".*?</form>", page.text, re.S)
        assert form, page.text
        hidden = re.findall(r"<input type=\"hidden\" name=\"([^\"]+)\" value=\"([^\"]*)\"", form[0])
        answer = super().post(str(page.url.join(form[1])), data={**dict(hidden), **fields})
        return self.follow(answer)

    def through(self, page: httpx.Response, name: str) -> httpx.Response:
        """Logs in and consents, as often as it is asked."""
        for _ in range(6):
            if self.left_for or "<form" not in page.text:
                return page
            if 'name="login"' in page.text:
                page = self.submit(page, login=name, password="any")
            else:
                page = self.submit(page)
        raise AssertionError(page.text)


@contextmanager
def host(folder: Path):
    """A host for ssh, as the lines of a target."""
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    port = free_port()
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/user_key.pub\nUsePAM no\nUseDNS no\nPermitRootLogin yes\n"
    )
    key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config"]
    with running(command, folder / "sshd.log"):
        yield f"""
[[target]]
name = "host"
protocol = "ssh"
address = "127.0.0.1:{port}"
host_key = "{key}"
credential = {{ user = "{getpass.getuser()}", private_key = {{ file = "{folder}/user_key" }} }}
[[access]]
groups = ["people"]
targets = ["host"]
"""


def configured(folder: Path, port: int, target: str) -> Path:
    (folder / "secret").write_text("crew-secret")
    file = folder / "portcullis.toml"
    file.write_text(
        f"""
[server]
data_dir = "data"
[listen]
web = "127.0.0.1:0"
ssh = "127.0.0.1:0"
[web]
auditors = ["people", "crews"]
[[issuer]]
name = "certified"
url = "http://127.0.0.1:{port}"
audiences = ["portcullis"]
client_id = "portcullis"
{target}
"""
    )
    return file


@contextmanager
def provider(folder: Path, port: int, keys: list):
    file = folder / "keys.json"
    file.write_text(json.dumps({"keys": [key["jwk"] for key in keys]}))
    with running(["node", PROVIDER, str(port), file], folder / "provider.log") as process:
        address = f"http://127.0.0.1:{port}/.well-known/openid-configuration"
        wait_for("provider", lambda: answers(address))
        yield process


@contextmanager
def running(command: list, log: Path):
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    except BaseException:
        sys.stderr.write(log.read_text()[-3000:])
        raise
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(MAX_WAIT)


def listening(log: Path, protocol: str) -> str | None:
    for line in log.read_text().splitlines():
        if line.startswith("{") and (event := json.loads(line)).get("protocol") == protocol:
            return f"http://{event['address']}"
    return None


def asked(web: str, token: str) -> int:
    bearer = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{web}/api/v1/sessions", headers=bearer).status_code


def answers(address: str) -> bool:
    try:
        return httpx.get(address).status_code == 200
    except httpx.TransportError:
        return False


def wait_for(what: str, ask):
    deadline = time.monotonic() + MAX_WAIT
    while time.monotonic() < deadline:
        if found := ask():
            return found
        time.sleep(0.1)
    raise TimeoutError(f"no {what} within {MAX_WAIT} s")


def new_key(name: str) -> dict:
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.private_numbers()
    point = numbers.public_numbers
    part = lambda number: encoded(number.to_bytes(32))
    jwk = {
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": name,
        "x": part(point.x), "y": part(point.y), "d": part(numbers.private_value),
    }
    return {"jwk": jwk, "private": private}


def header(token: str) -> dict:
    text = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def say(what: str) -> None:
    print(what, flush=True)


main(Path(sys.argv[1]).resolve())
