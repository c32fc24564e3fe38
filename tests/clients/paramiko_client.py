"""paramiko: commands, input, exit codes, sftp, several channels of one connection, a terminal."""

import os
import sys
import threading

import paramiko

host, port, user, known_hosts, key, folder = sys.argv[1:7]

client = paramiko.SSHClient()
client.load_host_keys(known_hosts)
client.connect(
    host,
    int(port),
    user,
    key_filename=key,
    look_for_keys=False,
    allow_agent=False,
)


def run(line, given=b""):
    stdin, stdout, stderr = client.exec_command(line)
    stdin.write(given)
    stdin.channel.shutdown_write()
    out, err = stdout.read(), stderr.read()
    return stdout.channel.recv_exit_status(), out, err


print(run("echo out; echo err >&2; exit 3"))
print(run("wc -c", b"x" * 300000))

answers = {}


def ask(number):
    answers[number] = run(f"sleep 0.1; echo {number}; exit {number}")


threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print([answers[number] for number in range(8)])

sftp = client.open_sftp()
path = os.path.join(folder, "paramiko")
content = os.urandom(700000)
with sftp.open(path, "wb") as file:
    file.set_pipelined(True)
    file.write(content)
with sftp.open(path, "rb") as file:
    file.prefetch()
    print("same", file.read() == content)
print(sftp.stat(path).st_size, "paramiko" in sftp.listdir(folder))
sftp.rename(path, path + ".moved")
sftp.remove(path + ".moved")
try:
    sftp.stat(path)
except FileNotFoundError as error:
    print("gone", error.errno)

channel = client.get_transport().open_session()
channel.get_pty("vt100", 100, 40)
channel.exec_command("stty size; while [ \"$(stty size)\" = '40 100' ]; do :; done; stty size")
while not channel.recv_ready():
    threading.Event().wait(0.01)
channel.resize_pty(120, 50)
text = b""
while True:
    piece = channel.recv(1000)
    if not piece:
        break
    text += piece
print(text, channel.recv_exit_status())
client.close()
