"""asyncssh: short commands one after the other on several connections, each with a number that its
exit status and its output tell again. Prints a line for each answer; with a count of 0 it goes on
until its connection ends."""

import asyncio
import sys

import asyncssh

host, port, user, known_hosts, key, command, first, count, wide = sys.argv[1:10]
first, count, wide = int(first), int(count), int(wide)


async def work(connection, lane):
    number = lane
    while count == 0 or number < count:
        told = first + number
        result = await connection.run(f"{command} {told}; exit {told % 200}")
        assert result.exit_status == told % 200, (told, result.exit_status)
        assert str(told) in result.stdout, (told, result.stdout)
        print(told, flush=True)
        number += wide


async def lanes(number):
    async with asyncssh.connect(
        host,
        int(port),
        username=user,
        known_hosts=known_hosts,
        client_keys=[(key, key + "-cert.pub")],
        agent_path=None,
        config=None,
    ) as connection:
        await work(connection, number)


async def main():
    await asyncio.gather(*(lanes(number) for number in range(wide)))


try:
    asyncio.run(main())
except (asyncssh.Error, OSError):
    if count != 0:
        raise
