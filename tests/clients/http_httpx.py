"""httpx through the gateway over HTTP/2 (known beforehand): many requests at once, server-sent events."""

import asyncio
import faulthandler
import os

import httpx

faulthandler.dump_traceback_later(50, exit=True)

gateway, token = os.environ["GATEWAY"], os.environ["TOKEN"]


async def main():
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(http1=False, http2=True, base_url=gateway, headers=headers) as client:
        answers = await asyncio.gather(*(client.get(f"/crew/n/{n}") for n in range(200)))
        assert all(answer.status_code == 200 for answer in answers)
        assert all(answer.http_version == "HTTP/2" for answer in answers)
        assert {answer.json()["path"] for answer in answers} == {f"/n/{n}" for n in range(200)}

        async def upload():
            for _ in range(64):
                yield bytes(16384)

        echo = (await client.post("/crew/upload", content=upload())).json()
        assert echo["length"] == 64 * 16384, echo
        assert len((await client.get("/crew/bytes/3000000")).content) == 3_000_000
        answer = await client.post("/crew/v1/things", json={"a": 1})
        assert answer.json()["body"].replace(" ", "") == '{"a":1}', answer.text
        assert (await client.get("/crew/admin")).status_code == 403
        assert (await client.get("/crew/%2e%2e/x")).status_code in (400, 401)

        # Each event is there before the next one is sent.
        seen = []
        async with client.stream("GET", "/crew/events?httpx") as events:
            async for line in events.aiter_lines():
                if line.startswith("data: "):
                    seen.append(line)
                if line == "data: first":
                    assert (await client.get("/crew/release?httpx")).status_code == 200
        assert seen == ["data: first", "data: second"], seen
    print("ok")


asyncio.run(main())
