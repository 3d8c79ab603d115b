#!/usr/bin/env python3
"""verify_journal.py DIR -- checks a journal from the description of its bytes alone (format.h, manifest.h)

A second implementation, sharing no line with the engine, for whoever wants to trust the files and not the program that
wrote them (engine/journal/).  Standard library only.  Prints each problem as "file, offset, record: text"; exits 0 if
there is none, 1 otherwise.
"""
import hashlib
import os
import re
import struct
import sys
import zlib

# ---- Ed25519 verification, RFC 8032 section 5.1.7 ----
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
I = pow(2, (P - 1) // 4, P)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def mul(s, p):
    q = (0, 1, 1, 0)
    while s:
        if s & 1:
            q = add(q, p)
        p, s = add(p, p), s >> 1
    return q


def point(raw):
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * I % P
    if (x * x - x2) % P or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def signed(key, text, signature):
    a, r, s = point(key), point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + text).digest(), "little") % L
    u, v = mul(s, BASE), add(r, mul(h, a))
    return (u[0] * v[2] - v[0] * u[2]) % P == 0 and (u[1] * v[2] - v[1] * u[2]) % P == 0


# ---- the journal ----
problems = 0
CHECKPOINT = re.compile(rb'\{"chain":"([0-9a-f]{64})","key":"([0-9a-f]{64})","signature":"([0-9a-f]{128})"\}')
LANE = re.compile(r"lane (\d+) first (\d+) (open|closed) (\d+) ([0-9a-f]{64})")
T_CLOSE, T_CHECKPOINT, T_ROLL, T_OWNERS, T_LAST = 2, 4, 5, 6, 9


def dirty(piece):
    return piece.strip(b"\0") != b""


def tell(path, offset, seq, text):
    global problems
    problems += 1
    print(f"{path}, offset {offset}, record {seq}: {text}")


def read_manifest(directory):
    path = os.path.join(directory, "manifest")
    data = open(path, "rb").read()
    try:
        lines = data.decode("ascii").split("\n")
        body = data[:data.rindex(b"signature ")]
        assert lines[0] == "sluice-journal 1" and lines[-1] == "" and re.fullmatch("signature [0-9a-f]{128}", lines[-2])
        ident = re.fullmatch("id ([0-9a-f]{32})", lines[1])[1]
        rest, keys, lanes, every = lines[2:-2], [], [], None
        if rest[0].startswith("checkpoint "):
            every = int(re.fullmatch("checkpoint ([1-9][0-9]*)", rest.pop(0))[1])
        while rest and rest[0].startswith("key "):
            keys.append(re.fullmatch("key ([0-9a-f]{64})", rest.pop(0))[1])
        for line in rest:
            n, first, how, seq, digest = LANE.fullmatch(line).groups()
            lanes.append((int(n), int(first), how == "closed", int(seq), bytes.fromhex(digest)))
            assert line == f"lane {int(n)} first {int(first)} {how} {int(seq)} {digest}"
        assert lanes == sorted(lanes) and len({lane[0] for lane in lanes}) == len(lanes)
        assert signed(bytes.fromhex(keys[-1]), body, bytes.fromhex(lines[-2][10:]))
    except (AssertionError, TypeError, IndexError, ValueError):
        tell(path, 0, 0, "not a manifest, or not signed by its newest key")
        sys.exit(1)
    return ident, every, [bytes.fromhex(k) for k in keys], lanes


class Lane:
    def __init__(self, directory, ident, every, keys, known):
        self.number, self.seq, self.closed, self.known_seq, self.known_hash = known
        self.path, self.ident, self.keys = os.path.join(directory, f"lane-{self.number}"), ident, keys
        self.last = hashlib.sha256(b"SLUJRNL1" + bytes.fromhex(ident) + struct.pack("<H", self.number)).digest()
        self.met, self.rolled, self.count, self.records = self.known_seq < self.seq, False, 0, 0
        self.every, self.unsigned = every, 0

    def run(self):
        there = os.listdir(self.path) if os.path.isdir(self.path) else []
        names = sorted(n for n in there if re.fullmatch(r"\d{16}\.seg", n))
        for i, name in enumerate(names):
            if not self.segment(os.path.join(self.path, name), int(name[:16]), i + 1 == len(names)):
                return
        if not names or not self.met or (self.closed and (self.seq != self.known_seq + 1 or self.rolled)):
            tell(self.path, 0, self.seq, "the lane does not end where the manifest says")

    def segment(self, path, named, last):
        data = open(path, "rb").read()
        if len(data) < 4096:
            return tell(path, 0, self.seq, "shorter than a header")
        magic, version, lane, zero, ident, first, _, size, number, key, link, digest = \
            struct.unpack_from("<8sIHH16sQqQQ32s32s32s", data)
        wrong = (magic != b"SLUJRNL1" and "magic") or (version != 2 and "version") or \
            (lane != self.number and "lane") or \
            ((zero or dirty(data[160:4096])) and "zeros") or (ident.hex() != self.ident and "journal id") or \
            (not named == first == self.seq and "first record") or (size != len(data) and "length") or \
            (number != self.count + 1 and (self.count or first == 1) and "segment number") or \
            (key not in self.keys and "key") or \
            ((self.count or first == 1) and link != self.last and "link") or \
            (digest != hashlib.sha256(data[:128] + data[160:4096]).digest() and "hash")
        if wrong:
            return tell(path, 0, self.seq, f"header: {wrong} is not right")
        self.last, self.count, self.rolled, behind = link, number, False, -1
        link, at = digest, 4096
        while True:
            gap = -at % 512
            skip = 0 if dirty(data[at:at + gap]) else gap
            if not dirty(data[at + skip:at + skip + 72]):
                break
            at += skip
            wrong, size = self.record(data, at, link, behind, key)
            if wrong or self.rolled:
                return tell(path, at, self.seq, wrong or "a record behind ROLL")
            self.rolled = data[at + 12] == T_ROLL
            behind, early = struct.unpack_from("<II", data, at + 32)
            first = early == 1 or behind == 0
            if not first if skip else first and at % 512:
                return tell(path, at, self.seq, "not where its batch belongs")
            if not self.rolled and at + size + -(at + size) % 512 + 512 > len(data):
                return tell(path, at, self.seq, "no room behind it for ROLL")
            link = self.last = data[at + 40:at + 72]
            if self.seq == self.known_seq:
                self.met = self.last == self.known_hash
                if not self.met:
                    return tell(path, at, self.seq, "not the record the manifest names")
            kind = data[at + 12]
            if kind in (T_CLOSE, T_CHECKPOINT) or self.seq == self.known_seq:
                self.unsigned = 0
            elif kind >= T_OWNERS:
                self.unsigned += 1
            if self.every and self.unsigned > 2 * self.every:
                return tell(path, at, self.seq, "more records without a signature than there should be")
            self.seq, self.records, at = self.seq + 1, self.records + 1, at + size
        if dirty(data[at:]):
            return tell(path, at, self.seq, "bytes where zeros belong")
        if not last and not self.rolled:
            return tell(path, at, self.seq, "records are missing")
        return True

    def record(self, data, at, link, behind, key):
        if len(data) - at < 72:
            return "cut", 0
        magic, crc, length, kind, zero, lane, seq, _, place, early = struct.unpack_from("<IIIBBHQqII", data, at)
        size = (72 + length + 7) & ~7
        payload = data[at + 72:at + 72 + length]
        if magic != 0x1f4c531e or size > len(data) - at or zlib.crc32(data[at + 8:at + size]) != crc:
            return "no record, or its checksum does not match", 0
        if zero or early > 1 or (early and not place) or dirty(data[at + 72 + length:at + size]) or \
                not 1 <= kind <= T_LAST:
            return "bytes where zeros belong, or an unknown type", 0
        wrong_place = place > behind + 1 if early else place not in (0, behind + 1)
        if lane != self.number or seq != self.seq or wrong_place:
            return "lane, sequence number or place in the batch", 0
        if hashlib.sha256(link + data[at + 8:at + 40] + data[at + 72:at + size]).digest() != data[at + 40:at + 72]:
            return "the chain is broken", 0
        if kind in (T_CLOSE, T_CHECKPOINT):
            form = CHECKPOINT.fullmatch(payload)
            if not form or bytes.fromhex(form[1].decode()) != self.last or bytes.fromhex(form[2].decode()) != key:
                return "not a checkpoint of this chain", 0
            text = "sluice-checkpoint 1 %s %d %d %s %s" % (self.ident, self.number, self.seq - 1, form[1].decode(),
                                                           form[2].decode())
            if not signed(key, text.encode(), bytes.fromhex(form[3].decode())):
                return "the checkpoint's signature does not match", 0
        return None, size


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    ident, every, keys, known = read_manifest(sys.argv[1])
    lanes = [Lane(sys.argv[1], ident, every, keys, k) for k in known]
    for lane in lanes:
        lane.run()
    listed = {f"lane-{lane.number}" for lane in lanes}
    for name in sorted(os.listdir(sys.argv[1])):
        if re.fullmatch(r"lane-\d+", name) and name not in listed and \
                any(n.endswith(".seg") for n in os.listdir(os.path.join(sys.argv[1], name))):
            tell(os.path.join(sys.argv[1], name), 0, 1, "a lane that the manifest does not list")
    print(f"{len(lanes)} lanes, {sum(lane.records for lane in lanes)} records, {problems} problems")
    sys.exit(1 if problems else 0)


main()
