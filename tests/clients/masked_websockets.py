"""WebSocket messages with what nobody may see, to a server that says them back."""

import asyncio
import faulthandler
import os

import websockets

faulthandler.dump_traceback_later(50, exit=True)

gateway, token = os.environ["GATEWAY"].replace("http", "ws"), os.environ["TOKEN"]
headers = {"Authorization": f"Bearer {token}"}

CASES = [
    ("to alice.secret@example.com", "to [email]"),
    ('{"ssn": "078-05-1120", "n": 1}', '{"ssn": "[masked]", "n": 1}'),
    (r'{"\u0073sn": "\u0030\u00378-05-1120"}', r'{"\u0073sn": "[masked]"}'),
    ('{"ssn": "078-05-1120"', "[masked]"),
    (b"\x00alice.secret@example.com\x00", b"[masked]"),
    ("ssn: 078-05-1120", "[masked]"),
    (['{"ssn": "078-', '05-1120"}'], '{"ssn": "[masked]"}'),
]


async def main():
    async with websockets.connect(f"{gateway}/crew/ws", additional_headers=headers) as socket:
        for sent, expected in CASES:
            await socket.send(sent)
            said = await socket.recv()
            assert said == expected, (sent, said)
    print("ok")


asyncio.run(main())
