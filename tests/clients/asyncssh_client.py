"""asyncssh: many processes at once on one connection, signals, exit signals, sftp."""

import asyncio
import os
import sys

import asyncssh

host, port, user, known_hosts, key, folder = sys.argv[1:7]


async def main():
    certificate = key + "-cert.pub"
    async with asyncssh.connect(
        host,
        int(port),
        username=user,
        known_hosts=known_hosts,
        client_keys=[(key, certificate)],
        agent_path=None,
        config=None,
    ) as connection:
        results = await asyncio.gather(
            *(connection.run(f"echo {n}; exit {n}") for n in range(10))
        )
        print([(result.stdout, result.exit_status) for result in results])

        async with connection.create_process("echo ready; exec sleep 3") as process:
            await process.stdout.readline()
            process.send_signal("TERM")
            await process.wait()
            print("signal", process.exit_signal)

        result = await connection.run("kill -KILL $$")
        print("killed", result.exit_signal, result.exit_status)

        content = os.urandom(500000)
        local = os.path.join(folder, "asyncssh.local")
        with open(local, "wb") as file:
            file.write(content)
        async with connection.start_sftp_client() as sftp:
            far = os.path.join(folder, "asyncssh.far")
            await sftp.put(local, far)
            await sftp.get(far, local + ".back")
            await sftp.remove(far)
            print("exists", await sftp.exists(far))
        with open(local + ".back", "rb") as file:
            print("same", file.read() == content)


asyncio.run(main())
