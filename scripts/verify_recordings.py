#!/usr/bin/env python3
"""A second verifier of recordings, written from docs/recording-format.md alone.

    verify_recordings.py DATA_DIR | RECORDING.rec … [--ledger FILE] [--public-key FILE] [--head LINES:HASH]
                         [--identity FILE] [--archive FOLDER]

The archive is what `[recording] archive` names, or a copy of it.

Prints for each what is wrong, or what was proved, as a line of JSON; exits with 1 when anything is wrong.
What is encrypted is verified without a key; with an age identity its events are looked at too.
It shares no code with Portcullis. Needs blake3, zstandard and cryptography from PyPI.
"""

import argparse
import base64
import datetime
import json
import os
import re
import stat
import struct
import sys

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

HEADER = struct.Struct("<II4sBBBBQQQqqQQQQ8s32s32s")
RECORD, SEALED = struct.Struct("<I8s"), struct.Struct("<QQQqqQ")
MAX_RAW, MAX_DOCUMENT, MAX_EVENT, MAX_LINE = 134_480_896, 65_536, 134_217_728, 4_096
MAX_STORED = MAX_RAW + MAX_RAW // 128 + 1_024
START, EVENTS, SEAL, FOUND = 0, 1, 2, 3
TAG = 16
KINDS = "opened gateway command data outcome refused note approval gap closed".split()
EVENT = re.compile(
    rb'\{"seq":(0|[1-9]\d*),"mono":(0|[1-9]\d*),"wall":(0|-?[1-9]\d*),"dir":"(up|down|none)",'
    rb'"kind":"([a-z]+)"(?:,"of":(0|[1-9]\d*))?,"len":(0|[1-9]\d*)\}\n'
)
SIGNED = re.compile(rb'(?s)(.*),"signature":"([0-9a-f]{128})"\}')
HEX = re.compile(r"[0-9a-f]{64}")
SESSION = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Wrong(Exception):
    """The first thing that is not what was written."""


def require(holds, what):
    if not holds:
        raise Wrong(what)


def digest(data):
    return blake3(data).digest()


def time_of(microseconds):
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=microseconds)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond:06}Z"


def parse(text, what):
    def unique(pairs):
        require(len({name for name, _ in pairs}) == len(pairs), f"{what} names a member twice")
        return dict(pairs)

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Wrong(f"{what} is not JSON") from error
    require(isinstance(value, dict), f"{what} is not an object")
    return value


def is_signed(text, purpose, key):
    match = SIGNED.fullmatch(text)
    if not match or not isinstance(key, str) or not HEX.fullmatch(key):
        return False
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(match[2].decode()), purpose + b"\n" + match[1])
    except (InvalidSignature, ValueError):
        return False
    return True


class Events:
    """What the events of one recording tell."""

    def __init__(self, session, unread):
        """`unread`: what is encrypted is passed over, and with it the beginning."""
        self.session, self.begun, self.closed = session, unread, None

    def tell(self, kind, payload):
        require(self.closed is None, "an event comes after `closed`")
        if kind == "data":
            require(len(payload) <= 65_536, "a data event is too long")
            told = None
        else:
            told = parse(payload, f"the payload of `{kind}`")
        require(self.begun != (kind in ("opened", "gateway")), "it does not begin once")
        if not self.begun:
            require(told.get("session") == self.session, "it opens another session")
        self.begun = True
        if kind == "closed":
            self.closed = told.get("how")
        return told


def read_events(raw, header, told, begin=0):
    """Holds events against their header. Those before `begin` were told before."""
    first, after, wall, last_wall, count = header
    at, due, walls, seen = 0, first, [], 0
    while at < len(raw):
        line = EVENT.match(raw, at)
        require(line, "an event's line is not one")
        sequence, wall_us, kind = int(line[1]), int(line[3]), line[5].decode()
        length, start = int(line[7]), line.end()
        require(kind in KINDS, "an event is of an unknown kind")
        require(length <= MAX_EVENT and start + length < len(raw), "an event is too long")
        require(raw[start + length] == 0x0A, "an event does not end with a newline")
        payload = raw[start : start + length]
        if sequence >= begin:
            payload = told.tell(kind, payload)
        elif kind == "gap":
            payload = parse(payload, "the payload of `gap`")
        require(sequence == due, "an event does not follow the one before")
        due += max(1, payload["events"]) if kind == "gap" else 1
        walls.append(wall_us)
        at, seen = start + length + 1, seen + 1
    require(seen and seen == count and due == after, "the header counts other events")
    require((walls[0], walls[-1]) == (wall, last_wall), "the header tells other times")


def frame(stored, magic):
    require(stored[:4] == bytes.fromhex(magic), "it is another frame")
    require(struct.unpack("<I", stored[4:8])[0] == len(stored) - 8, "its frame has another length")
    return stored[8:]


def document(stored, raw_length):
    text = frame(stored, "512a4d18")
    require(len(text) == raw_length, "its length")
    return text


def decompress(stored, raw_length):
    require(stored[:4] == bytes.fromhex("28b52ffd"), "it is not a zstd frame")
    try:
        parameters = zstandard.get_frame_parameters(stored)
        require(parameters.content_size == raw_length, "the frame has another length")
        require(parameters.has_checksum, "the frame has no checksum")
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        raw = unpacker.decompress(stored)
    except zstandard.ZstdError as error:
        raise Wrong("it does not decompress") from error
    require(unpacker.eof and not unpacker.unused_data, "it is not one frame")
    require(len(raw) == raw_length, "the events have another length")
    return raw


def unseal(key, number, sealed, about):
    try:
        return AESGCM(key).decrypt(struct.pack("<4xQ", number), sealed, about)
    except InvalidTag as error:
        raise Wrong("it is not what its key sealed") from error


def records_of(content, session):
    """The sealed records of a journal: what each tells, what is bound to it, and what is sealed."""
    about = b"PCJ1" + bytes([1, 1, 0, 0]) + bytes.fromhex(session.replace("-", ""))
    at, records = 0, []
    while at < len(content):
        require(len(content) - at >= RECORD.size, "a record is not whole")
        length, checksum = RECORD.unpack_from(content, at)
        record = content[at + RECORD.size : at + RECORD.size + length]
        require(len(record) == length > SEALED.size + TAG, "a record is not whole")
        require(digest(record)[:8] == checksum, "a record has another checksum")
        head = record[: SEALED.size]
        records.append((SEALED.unpack(head), about + head, record[SEALED.size :]))
        at += RECORD.size + length
    return records


def read_found(records, header, raw_length, key):
    """Holds records against the header of their block; their events, where there is a key."""
    first, after, wall, last_wall, count = header
    require(records, "there is no record")
    heads = [head for head, _, _ in records]
    for (_, begin, end, *_), following in zip(heads, heads[1:] + [(0, after)]):
        require(begin < end == following[1], "the records do not follow one another")
    require(heads[0][1] <= first < heads[0][2], "the records begin elsewhere")
    require((heads[0][3], heads[-1][4]) == (wall, last_wall), "the header tells other times")
    counts = [n if begin >= first else end - first for _, begin, end, _, _, n in heads]
    require(all(n for *_, n in heads) and sum(counts) == count, "the header counts other events")
    lengths = [len(sealed) - TAG for _, _, sealed in records]
    require(sum(lengths) == raw_length, "the records have another length")
    for (number, begin, end, first_wall, last, n), about, sealed in records if key else []:
        yield unseal(key, number, sealed, about), (begin, end, first_wall, last, n)


BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def read_identities(path):
    """The private keys of an identity file of age."""
    keys = []
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    for line in (line for line in lines if line and not line.startswith("#")):
        prefix, _, data = line.lower().rpartition("1")
        assert prefix == "age-secret-key-", "it is no identity of age's X25519 kind"
        bits = "".join(f"{BECH32.index(letter):05b}" for letter in data[:-6])
        keys.append(int(bits[:256], 2).to_bytes(32, "big"))
    return keys


def derive(secret, salt, info):
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


def unwrap(text, identities):
    """The secret in a file of age, if one of the identities opens it (https://c2sp.org/age)."""
    def decode(part):
        return base64.b64decode(part + "=" * (-len(part) % 4), validate=True)

    match = re.match(rb"(?s)(age-encryption\.org/v1\n.*?\n---) ([A-Za-z0-9+/]+)\n", text)
    require(match, "the wrapped key is no file of age")
    stanzas = re.findall(rb"-> X25519 (\S+)\n(\S+)\n", match[1])
    for private in map(X25519PrivateKey.from_private_bytes, identities):
        own = private.public_key().public_bytes_raw()
        for share, body in ((decode(share.decode()), decode(body.decode())) for share, body in stanzas):
            shared = private.exchange(X25519PublicKey.from_public_bytes(share))
            wrapping = derive(shared, share + own, b"age-encryption.org/v1/X25519")
            try:
                file_key = ChaCha20Poly1305(wrapping).decrypt(bytes(12), body, b"")
            except InvalidTag:
                continue
            code = hmac.HMAC(derive(file_key, b"", b"header"), hashes.SHA256())
            code.update(match[1])
            code.verify(decode(match[2].decode()))
            nonce, sealed = text[match.end() :][:16], text[match.end() :][16:]
            return ChaCha20Poly1305(derive(file_key, nonce, b"payload")).decrypt(
                bytes(11) + b"\x01", sealed, b""
            )
    return None


def key_of(said, path, identities):
    """The key of a recording that is encrypted, if an identity opens it."""
    require(said["cipher"] == "aes-256-gcm" and said["recipients"], "it has another cipher")
    wrapped = [base64.b64decode(said["key"], validate=True)]
    anew = os.path.splitext(path)[0] + ".age"
    if identities and os.path.exists(anew):
        with open(anew, "rb") as file:
            wrapped.append(file.read())
    return next(filter(None, (unwrap(each, identities) for each in wrapped)), None)


def verify_file(path, session=None, identities=()):
    """Proves a file by itself; its seal as the ledger should have it, and the seal's key, or None."""
    index = sequence = events = raw_bytes = 0
    chain, told, sealed = bytes(32), None, None
    encrypted = ended = False
    secret = None
    info = os.lstat(path)
    require(stat.S_ISREG(info.st_mode), "it is not a file")
    with open(path, "rb") as file:
        while True:
            offset = file.tell()
            where = f"block {index} at byte {offset}: "
            head = file.read(HEADER.size)
            if not head:
                break
            require(sealed is None, where + "there are bytes behind the seal")
            require(len(head) == HEADER.size, where + "the file ends within a header")
            fields = HEADER.unpack(head)
            magic, length, name, kind, cipher, ends, zero, number, first, after = fields[:10]
            wall, last_wall, raw_length, stored_length, count, sealed_by = fields[10:16]
            nothing, stored_hash, before = fields[16:]
            fixed = (magic, length, name, zero, nothing)
            require(fixed == (0x184D2A50, 152, b"PCR1", 0, bytes(8)), where + "it is no header")
            seals = kind == EVENTS and cipher == 1
            require(cipher in (0, 1) and ends in (0, 1), where + "it is no header")
            require((sealed_by != 0) == seals and ends <= seals, where + "it has another cipher")
            require(cipher == (kind == FOUND) or seals, where + "it has another cipher")
            require(encrypted or not cipher, where + "it is encrypted, and the recording is not")
            require(not ended or kind == SEAL, where + "it comes after the last event")
            require(number == index, where + "its number is another")
            require(before == chain, where + "the chain is broken")
            require(first == sequence and after >= first, where + "its sequence is another")
            plain = kind in (START, SEAL)
            require(plain or kind in (EVENTS, FOUND), where + "its kind is unknown")
            require((kind == START) == (index == 0), where + "a file starts once")
            most = (MAX_DOCUMENT, MAX_DOCUMENT + 8) if plain else (MAX_RAW, MAX_STORED)
            require(raw_length <= most[0] and stored_length <= most[1], where + "it is too long")
            stored = file.read(stored_length)
            require(len(stored) == stored_length, where + "the file ends within it")
            require(digest(stored) == stored_hash, where + "its bytes have another hash")
            try:
                if plain:
                    same = first == after and count == 0 and wall == last_wall
                    require(same, "a document's header tells of events")
                    text = document(stored, raw_length)
                    said = parse(text, "the document")
                if kind == START:
                    want = {"format": 1, "dictionary": None}
                    require(want.items() <= said.items(), "it needs what this reader does not have")
                    encrypted = said["cipher"] is not None
                    require(encrypted or not said["recipients"], "it names recipients")
                    secret = key_of(said, path, identities) if encrypted else None
                    require(said["started"] == time_of(wall), "it tells two times")
                    other = "it is another session's recording"
                    require(session in (None, said["session"]), other)
                    told = Events(said["session"], encrypted and secret is None)
                elif kind == FOUND:
                    records = records_of(frame(stored, "532a4d18"), told.session)
                    header = first, after, wall, last_wall, count
                    for raw, about in read_found(records, header, raw_length, secret):
                        read_events(raw, about, told, first)
                elif kind == EVENTS:
                    if cipher:
                        stored = frame(stored, "522a4d18")
                        require(len(stored) > TAG, "nothing is sealed")
                        about = head[:96] + bytes(32) + head[128:]
                        stored = unseal(secret, sealed_by, stored, about) if secret else None
                    if stored is not None:
                        raw = decompress(stored, raw_length)
                        read_events(raw, (first, after, wall, last_wall, count), told)
                        require(not cipher or (told.closed is not None) == bool(ends), "its end")
                    ended = ended or bool(ends)
                else:
                    if encrypted and (said["how"] == "unread" or (told.closed is None and ended)):
                        # Whoever sealed it could not read how it ended, or we cannot.
                        require(ended, "the last event is not `closed`")
                        told.closed = said["how"]
                    interrupted = told.closed == "interrupted"
                    want = {
                        "head": chain.hex(), "blocks": index, "events": events, "raw": raw_bytes,
                        "how": told.closed, "interrupted": interrupted, "sealed_at": time_of(wall),
                    }
                    require(told.closed is not None, "the last event is not `closed`")
                    require(want.items() <= said.items(), "the seal tells of something else")
                    key = said["key"]
                    signed = key is None or is_signed(text, b"portcullis seal 1", key)
                    require(signed, "the seal's signature is not its key's")
                    sealed = {
                        "seal": digest(head).hex(), "blocks": index, "events": events,
                        "size": file.tell(), "how": told.closed, "interrupted": interrupted,
                    }
            except (KeyError, TypeError, AttributeError) as error:
                raise Wrong(where + f"something is missing: {error}") from error
            except Wrong as wrong:
                raise Wrong(where + str(wrong)) from None
            if kind in (EVENTS, FOUND):
                events, raw_bytes = events + count, raw_bytes + raw_length
            index, sequence, chain = index + 1, after, digest(head)
    require(told is not None, "it is empty")
    return told.session, (sealed, key) if sealed else None


class Ledger:
    """A ledger that holds together."""

    def __init__(self, path, keys, heads):
        self.opened, self.sealed, self.damaged, self.buried, self.keys = set(), {}, {}, {}, []
        trusted, before, lines = False, b"", 0
        head = "0" * 64
        missing = {(count, noted) for count, noted in heads if count}
        with open(path, "rb") as file:
            while text := file.readline(MAX_LINE):
                where = f"the ledger's line {lines}: "
                require(text.endswith(b"\n"), where + "it is not whole")
                text = text[:-1]
                line = parse(text, where + "it")
                require(line.get("n") == lines and line.get("prev") == head, where + "the chain is broken")
                kind = line.get("type")
                require((kind == "ledger") == (lines == 0), where + "a ledger begins once")
                if kind == "ledger":
                    self.gateway = line.get("gateway")
                    require(line.get("format") == 1, where + "its format is unknown")
                    if "key" in line:
                        require(self.signs(text, line["key"]), where + "its signature")
                        self.keys.append(line["key"])
                        trusted = line["key"] in keys
                elif kind == "key":
                    handed_over = bool(self.keys) and self.signs(text, self.keys[-1])
                    require(handed_over or self.signs(text, line.get("key")), where + "its signature")
                    # What the key before signed last.
                    require(self.last_is_signed(before), where + "the signature before it")
                    self.keys.append(line["key"])
                    trusted = line["key"] in keys or (trusted and handed_over)
                else:
                    self.note(kind, line, where)
                unsigned = text.endswith(b',"signature":null}')
                require(self.keys or unsigned, where + "it is signed, and no key was named")
                before, lines, head = text, lines + 1, digest(text).hex()
                missing.discard((lines, head))
        require(lines, "the ledger is empty")
        require(self.last_is_signed(before), f"the ledger's line {lines - 1}: its signature")
        require(not missing, "the ledger does not have a head that was noted elsewhere")
        require(trusted or not keys, "the ledger is signed with none of the keys given")
        self.head, self.trusted = f"{lines}:{head}", trusted

    def note(self, kind, line, where):
        session = line.get("session")
        if kind == "opened":
            self.opened.add(session)
        elif kind == "sealed":
            names = ("seal", "blocks", "events", "size", "how", "interrupted")
            sealed = {name: line.get(name) for name in names}
            self.sealed.setdefault(session, []).append(sealed)
        elif kind == "damaged":
            self.damaged[session] = line.get("what")
        elif kind == "tombstone":
            self.buried.setdefault(session, line.get("missing", False))
        else:
            require(kind == "checkpoint", where + "its type is unknown")

    @staticmethod
    def signs(text, key):
        return is_signed(text, b"portcullis ledger line 1", key)

    def last_is_signed(self, text):
        begins = parse(text, "a line").get("type") == "key"
        return not self.keys or begins or self.signs(text, self.keys[-1])

    def hold(self, session, seal):
        """Holds what a file says against what this says of it."""
        require(session in self.opened, "the ledger does not have it as opened")
        noted = self.sealed.get(session, [])
        if seal is None:
            require(not noted, "the ledger has it as sealed, and its seal is not there")
            require(session not in self.damaged, "the ledger has it as damaged")
            raise Wrong("it is not sealed")
        require(seal[1] is None or seal[1] in self.keys, "its seal's key is none of the ledger's")
        require(noted, "the ledger does not have it as sealed")
        require(all(each == seal[0] for each in noted), "the ledger has another seal")


def archived(folder, gateway):
    """The recordings of a gateway in an archive."""
    for place, _, names in os.walk(os.path.join(folder, gateway)):
        for name in names:
            session, _, ending = name.partition(".")
            if SESSION.fullmatch(session) and ending == "rec":
                yield session, os.path.join(place, name)


def verify_all(folder, ledger_path, keys, heads, identities, archive):
    """Everything that is wrong in a data_dir, its ledger, and how many recordings there are and were deleted."""
    wrong, ledger, found = [], None, {}
    try:
        ledger = Ledger(ledger_path or os.path.join(folder, "ledger"), keys, heads)
    except (Wrong, OSError) as error:
        wrong.append(str(error))
    recordings = os.path.join(folder, "recordings")
    for day in sorted(os.listdir(recordings)):
        place = os.path.join(recordings, day)
        if not stat.S_ISDIR(os.lstat(place).st_mode):
            wrong.append(f"{place}: it is no file of a recording")
            continue
        for name in sorted(os.listdir(place)):
            path = os.path.join(place, name)
            session, _, ending = name.partition(".")
            known = SESSION.fullmatch(session) and ending in ("rec", "journal", "age", "age-new", "hold")
            # The first 48 bits are milliseconds since 1970.
            if not known or day != time_of(int(session[:8] + session[9:13], 16) * 1000)[:10]:
                wrong.append(f"{path}: it is no file of a recording")
            elif ending == "rec":
                found[session] = path
    if ledger and archive:
        found = dict(archived(archive, ledger.gateway)) | found
    sessions = set(found) | (ledger.opened | set(ledger.sealed) if ledger else set())
    for session in sorted(sessions):
        # A tombstone stands for a recording that is gone.
        if ledger and session in ledger.buried and session not in found:
            continue
        try:
            require(session in found, "the ledger has it, and its file is missing")
            _, seal = verify_file(found[session], session, identities)
            if ledger:
                ledger.hold(session, seal)
        except (Wrong, OSError) as error:
            wrong.append(f"{found.get(session, session)}: {error}")
    return wrong, ledger, len(found), len(set(ledger.buried) - set(found)) if ledger else 0


def read_keys(path):
    with open(path, "rb") as file:
        blocks = re.findall(rb"(?s)-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", file.read())
    keys = [serialization.load_pem_public_key(block + b"\n") for block in blocks]
    assert keys and all(isinstance(key, Ed25519PublicKey) for key in keys), "no Ed25519 keys"
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    return {key.public_bytes(*raw).hex() for key in keys}


def verify_path(path, options, keys, heads, identities):
    if os.path.isdir(path):
        told = verify_all(path, options.ledger, keys, heads, identities, options.archive)
        wrong, ledger, count, deleted = told
        proved = ["whole", "complete"]
    else:
        wrong, ledger, count, deleted, proved = [], None, 1, 0, ["whole"]
        try:
            # A recording is named after its session; a file of another name proves whatever it is.
            name, ending = os.path.splitext(os.path.basename(path))
            named = name if ending == ".rec" and SESSION.fullmatch(name) else None
            session, seal = verify_file(path, named, identities)
            if options.ledger:
                ledger = Ledger(options.ledger, keys, heads)
                ledger.hold(session, seal)
            else:
                require(seal is not None, "it is not sealed")
                require(not keys or seal[1] in keys, "it is signed with none of the keys given")
        except (Wrong, OSError) as error:
            wrong.append(f"{path}: {error}")
    proved += ["signed"] * bool(keys) + ["anchored"] * bool(heads and ledger)
    return {
        "path": path, "recordings": count, "wrong": wrong, "proved": [] if wrong else proved,
        "head": ledger.head if ledger else None, "deleted": deleted,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", nargs="+")
    parser.add_argument("--ledger")
    parser.add_argument("--public-key")
    parser.add_argument("--archive")
    parser.add_argument("--head", action="append", default=[])
    parser.add_argument("--identity")
    options = parser.parse_args()
    keys = read_keys(options.public_key) if options.public_key else set()
    heads = [(int(count), noted) for count, noted in (head.split(":") for head in options.head)]
    identities = read_identities(options.identity) if options.identity else []
    reports = [verify_path(path, options, keys, heads, identities) for path in options.path]
    for report in reports:
        print(json.dumps(report))
    return int(any(report["wrong"] for report in reports))


if __name__ == "__main__":
    sys.exit(main())
