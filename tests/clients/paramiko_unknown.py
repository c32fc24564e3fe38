"""paramiko: requests, channels and operations on files of kinds that no gateway knows. Says what
came of each; none of them may pass, and what is known goes on."""

import sys

import paramiko

host, port, user, known_hosts, key, _folder = sys.argv[1:7]
CLIENT_KEY = paramiko.Ed25519Key(filename=key)
CLIENT_KEY.load_certificate(key + "-cert.pub")
REFUSED = (paramiko.SSHException, EOFError, OSError)

transport = paramiko.Transport((host, int(port)))
transport.start_client()
transport.auth_publickey(user, CLIENT_KEY)

for kind in ("made-up@example.com", "hostkeys-prove-00@openssh.com"):
    answer = transport.global_request(kind, ("x",))
    print("global", kind, "refused" if answer is None else "taken")

for kind in (
    "made-up@example.com",
    "x11",
    "forwarded-tcpip",
    "forwarded-streamlocal@openssh.com",
    "auth-agent@openssh.com",
    "tun@openssh.com",
):
    try:
        transport.open_channel(kind, ("127.0.0.1", 22), ("127.0.0.1", 22), timeout=20)
        print("channel", kind, "opened")
    except paramiko.ChannelException:
        print("channel", kind, "refused")
    except REFUSED:
        # What is malformed may end the connection.
        print("channel", kind, "refused")
        if not transport.is_active():
            transport = paramiko.Transport((host, int(port)))
            transport.start_client()
            transport.auth_publickey(user, CLIENT_KEY)


def asks(kind, *fields):
    """Whether a channel takes a request."""
    channel = transport.open_session(timeout=20)
    request = paramiko.Message()
    request.add_byte(bytes([98]))
    request.add_int(channel.remote_chanid)
    request.add_string(kind)
    request.add_boolean(True)
    request.add(*fields)
    channel._event_pending()
    transport._send_user_message(request)
    try:
        channel._wait_for_event()
        print("request", kind, "taken")
    except REFUSED:
        print("request", kind, "refused")


asks("made-up@example.com", "x")
asks("break", 500)
asks("auth-agent-req@openssh.com")
asks("x11-req", True, "MIT-MAGIC-COOKIE-1", "00", 0)


def sftp():
    return paramiko.SFTPClient.from_transport(transport)


files = sftp()
for name in ("made-up@example.com", "copy-file"):
    try:
        files._request(200, name, "/etc/hostname", "/tmp/never")
        print("extension", name, "done")
    except OSError as error:
        print("extension", name, type(error).__name__)
print("stat", "found" if files.stat("/") else "missing")
files.close()

# A request of a kind that is none, and an answer where a request is due.
for word, kind in (("kind", 77), ("kind", 21), ("answer", 105)):
    files = sftp()
    try:
        files._request(kind, "/etc/hostname")
        print(word, kind, "answered")
    except REFUSED:
        print(word, kind, "ended")

channel = transport.open_session(timeout=20)
channel.exec_command("echo after")
channel.settimeout(20)
print("after", channel.recv(100))
transport.close()
