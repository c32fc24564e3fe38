"""Refuses this process every connection and every name beyond this machine, and keeps the list."""

import ipaddress
import sys

refused: list[str] = []


def is_here(host: str | bytes | None) -> bool:
    text = host.decode() if isinstance(host, bytes) else host
    if text in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def look(event: str, arguments: tuple) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if not is_here(host):
        refused.append(str(host))
        raise PermissionError(f"{host} is not this machine")


sys.addaudithook(look)
