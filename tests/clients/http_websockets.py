"""websockets through the gateway: texts, bytes, fragments, pings, closing from both sides."""

import asyncio
import faulthandler
import os

import websockets

faulthandler.dump_traceback_later(50, exit=True)

gateway, token = os.environ["GATEWAY"].replace("http", "ws"), os.environ["TOKEN"]


def connect(path, **options):
    headers = {"Authorization": f"Bearer {token}"}
    return websockets.connect(f"{gateway}/crew{path}", additional_headers=headers, **options)


async def main():
    async with connect("/ws", subprotocols=["v2.chat", "chat"]) as socket:
        assert socket.subprotocol == "v2.chat", socket.subprotocol
        assert not socket.protocol.extensions, "compression was agreed on"
        await socket.send("hello over the gateway")
        assert await socket.recv() == "hello over the gateway"
        await socket.send(bytes(range(256)) * 300)
        assert await socket.recv() == bytes(range(256)) * 300
        await socket.send(["in ", "three ", "pieces"])
        assert await socket.recv() == "in three pieces"
        await (await socket.ping())
        for n in range(200):
            await socket.send(f"message {n}")
        for n in range(200):
            assert await socket.recv() == f"message {n}"
    async with connect("/ws") as socket:
        await socket.send("bye")
        try:
            await socket.recv()
            raise SystemExit("the connection went on")
        except websockets.ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as you wish"), closed
    try:
        async with websockets.connect(f"{gateway}/crew/ws"):
            raise SystemExit("somebody without a token got in")
    except websockets.InvalidStatus as refused:
        assert refused.response.status_code == 401
    print("ok")


asyncio.run(main())
