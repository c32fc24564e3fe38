"""requests through the gateway: a session, streaming, an upload from a generator, redirects."""

import faulthandler
import os

import requests

faulthandler.dump_traceback_later(50, exit=True)

gateway, token = os.environ["GATEWAY"], os.environ["TOKEN"]
session = requests.Session()
session.headers["Authorization"] = f"Bearer {token}"
crew = f"{gateway}/crew"

assert session.get(f"{crew}/v1/things", params={"q": "a b", "n": [1, 2]}).json()["query"] == "q=a+b&n=1&n=2"
echo = session.post(f"{crew}/v1/things", json={"name": "é"}).json()
assert echo["method"] == "POST" and '"name"' in echo["body"], echo
for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
    assert session.request(method, f"{crew}/v1/things/7", data="x").json()["method"] == method
assert session.head(f"{crew}/status/200").status_code == 200


def chunks():
    for _ in range(100):
        yield b"0123456789" * 100


echo = session.post(f"{crew}/upload", data=chunks()).json()
assert echo["length"] == 100_000, echo
files = {"file": ("name.txt", b"content", "text/plain")}
assert session.post(f"{crew}/upload", files=files).json()["length"] > 7

with session.get(f"{crew}/bytes/5000000", stream=True) as response:
    assert sum(len(chunk) for chunk in response.iter_content(65536)) == 5_000_000
assert session.get(f"{crew}/gzip").text == "hello " * 100
followed = session.get(f"{crew}/redirect?/v1/there")
assert followed.json()["path"] == "/v1/there", followed.text
assert session.get(f"{crew}/status/503").status_code == 503
assert requests.get(f"{crew}/x").status_code == 401
blocked = session.delete(f"{crew}/admin/users")
assert blocked.status_code == 403 and blocked.json()["rule"] == "no-admin", blocked.text
print("ok")
