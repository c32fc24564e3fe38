"""paramiko: windows, packet sizes and user names as no client sends them. Says what came of each;
none of it may stall or crash anybody."""

import socket
import sys

import paramiko

host, port, user, known_hosts, key, _folder = sys.argv[1:7]
CLIENT_KEY = paramiko.Ed25519Key(filename=key)
CLIENT_KEY.load_certificate(key + "-cert.pub")


def connected(name=user):
    transport = paramiko.Transport((host, int(port)))
    transport.start_client()
    transport.auth_publickey(name, CLIENT_KEY)
    return transport


def message(number, *numbers):
    packet = paramiko.Message()
    packet.add_byte(bytes([number]))
    for value in numbers:
        packet.add_int(value)
    return packet


def answer(channel):
    """What a command said, or that nothing more came."""
    channel.settimeout(10)
    said = b""
    try:
        while more := channel.recv(4096):
            said += more
    except (socket.timeout, OSError, EOFError) as error:
        return type(error).__name__
    return said


# S19: windows beyond 2^32 - 1.
transport = connected()
channel = transport.open_session(timeout=10)
for _ in range(3):
    transport._send_user_message(message(93, channel.remote_chanid, 0xFFFFFFFF))
channel.exec_command("echo wide")
print("window", answer(channel))
transport.close()

# S19: a packet size of nothing, and of everything.
for size in (0, 1, 0xFFFFFFFF):
    transport = connected()
    transport._sanitize_packet_size = lambda _, size=size: size
    try:
        channel = transport.open_session(timeout=10)
        channel.exec_command("echo sized")
        print("size", size, answer(channel))
    except (paramiko.SSHException, EOFError, OSError) as error:
        print("size", size, type(error).__name__)
    transport.close()

# Requests, data and ends for channels that nobody opened.
transport = connected()
for number in (93, 94, 96, 97, 98):
    transport._send_user_message(message(number, 77, 1))
try:
    channel = transport.open_session(timeout=10)
    channel.exec_command("echo after")
    print("unopened", answer(channel))
except (paramiko.SSHException, EOFError, OSError) as error:
    print("unopened", type(error).__name__)
transport.close()

# S07: the user changes; nothing of the one is the other's.
transport = paramiko.Transport((host, int(port)))
transport.start_client()
try:
    transport.auth_none(user)
except paramiko.SSHException as error:
    print("none", type(error).__name__)
try:
    transport.auth_publickey("web-2", CLIENT_KEY)
    print("in")
except paramiko.SSHException:
    print("other", transport.is_authenticated())
try:
    transport.auth_publickey(user, CLIENT_KEY)
    channel = transport.open_session(timeout=10)
    channel.exec_command("echo own")
    print("own", answer(channel))
except paramiko.SSHException as error:
    print("own", type(error).__name__)
transport.close()
