"""Prints each message that a WebSocket at the path in the argument brings, until it closes."""

import asyncio
import faulthandler
import json
import os
import sys

import websockets

faulthandler.dump_traceback_later(50, exit=True)

gateway, token = os.environ["GATEWAY"].replace("http", "ws"), os.environ["TOKEN"]
headers = {"Authorization": f"Bearer {token}"}


async def main():
    async with websockets.connect(f"{gateway}{sys.argv[1]}", additional_headers=headers) as socket:
        async for message in socket:
            print(json.dumps(message), flush=True)


asyncio.run(main())
