"""The transcript that a client program prints: the same directly and through the gateway.

Nothing that differs from run to run may be in it: no process id, no OID, no time.
"""

import hashlib


def section(name: str) -> None:
    print(f"== {name}", flush=True)


def show(label: str, value: object) -> None:
    print(f"{label}: {value!r}", flush=True)


def digest(chunks) -> tuple[int, str]:
    """Length and SHA-256 of a stream of byte chunks, for what is too long to print."""
    length, hashed = 0, hashlib.sha256()
    for chunk in chunks:
        length += len(chunk)
        hashed.update(chunk)
    return length, hashed.hexdigest()


def show_error(label: str, error: Exception) -> None:
    """Everything that the server says of an error, whichever driver raised it."""
    fields = (
        "sqlstate severity message_primary message_detail message_hint context"
        " schema_name table_name column_name datatype_name constraint_name statement_position"
        " detail hint source_file source_function"
    ).split()
    said = getattr(error, "diag", None) or error
    told = {name: getattr(said, name, None) for name in fields}
    show(label, (type(error).__name__, {name: text for name, text in told.items() if text}))
