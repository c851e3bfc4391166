"""Nested lists of strings in an R data file, ten times faster than the general reader."""

import bz2
import gzip
import lzma
import struct
from pathlib import Path

import numpy as np

from perturbcore.core.errors import InputError

STRINGS, LIST, NIL, REFERENCE = 16, 19, 254, 255
HAS_ATTRIBUTES = 0x200
COMPRESSED = {b"BZh": bz2, b"\x1f\x8b": gzip, b"\xfd7zXZ\x00": lzma}


def read_string_lists(path, name: str) -> dict:
    """Read an object that is a named list, nested at will, of character vectors."""
    raw = Path(path).read_bytes()
    pack = next((m for mark, m in COMPRESSED.items() if raw.startswith(mark)), None)
    return _Reader(pack.decompress(raw) if pack else raw).pairs()[name]


class _Reader:
    def __init__(self, raw: bytes):
        self.raw, self.at = raw, len(b"RDX3\nX\n")
        self.references: list[str] = []
        # one Python string per distinct value: the same gene comes in every list
        self.known: dict[bytes, str] = {}
        version, _, _ = (self.integer() for _ in range(3))
        if version == 3:
            self.text()

    def pairs(self) -> dict:
        # named objects: those of a file, or the attributes of an object
        out = {}
        while self.integer() & 0xFF != NIL:
            flags = self.integer()  # of the symbol that names it
            if flags & 0xFF == REFERENCE:
                name = self.references[(flags >> 8 or self.integer()) - 1]
            else:
                self.integer()  # the type of a string
                name = self.text()
                self.references.append(name)
            out[name] = self.value()
        return out

    def value(self):
        flags = self.integer()
        kind = flags & 0xFF
        if kind not in (STRINGS, LIST):
            raise InputError(f"R type {kind}, but only lists of character vectors are read here")
        n = self.integer()
        out = [self.value() for _ in range(n)] if kind == LIST else self.strings(n)
        names = self.pairs().get("names") if flags & HAS_ATTRIBUTES else None
        return out if kind == STRINGS else dict(zip(names, out, strict=True))

    def strings(self, n: int) -> np.ndarray:
        raw, at, known, head = self.raw, self.at, self.known, struct.Struct(">ii")
        values = np.empty(n, dtype=object)
        for i in range(n):
            start = at + head.size
            at = start + max(head.unpack_from(raw, at)[1], 0)  # length -1: a missing value
            value = raw[start:at]
            if value not in known:
                known[value] = value.decode()
            values[i] = known[value]
        self.at = at
        return values

    def integer(self) -> int:
        (out,) = struct.unpack_from(">i", self.raw, self.at)
        self.at += 4
        return out

    def text(self) -> str:
        length = self.integer()
        self.at += length
        return self.raw[self.at - length : self.at].decode()
