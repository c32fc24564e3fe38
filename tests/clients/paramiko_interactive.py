"""paramiko: keyboard-interactive with answers that nobody asked for."""

import sys

import paramiko

host, port, user = sys.argv[1:4]

for answers in (["x"], ["x"] * 1000, ["x" * 200_000]):
    transport = paramiko.Transport((host, int(port)))
    transport.start_client()
    asked = []

    def answer(title, instructions, prompts):
        asked.append((instructions, prompts))
        return answers

    try:
        transport.auth_interactive(user, answer)
        print("in")
    except paramiko.AuthenticationException:
        # No code was opened for it.
        nothing = "code" not in asked[0][0] and asked[0][1] == []
        print("refused", len(asked), nothing)
    transport.close()
