"""Nested lists of strings in an R data file, read at the speed of the disk.

The reader of R files that other data sets use spends minutes on a million strings. Here only what a
list of character vectors needs is understood; anything else is refused with its name.
"""

import bz2
import gzip
import lzma
import struct
import zlib

import numba
import numpy as np

from perturbcore.core.errors import InputError
from perturbcore.data.read import existing

SYMBOL, PAIRLIST, CHAR, STRINGS, LIST, NIL, REFERENCE = 1, 2, 9, 16, 19, 254, 255
HAS_ATTRIBUTES, HAS_TAG = 0x200, 0x400
DAMAGED = (
    OSError, EOFError, ValueError, IndexError, struct.error, lzma.LZMAError, zlib.error,
)  # fmt: skip


def read_string_lists(path, name: str) -> dict:
    """Read an object that is a named list, nested at will, of character vectors.

    `path` is an `.rda` file of R's binary (XDR) format, compressed or not. Returns dictionaries
    nested as in the file; a character vector is an object array of str (missing values "").
    Refused: a file that is cut short, has no object `name`, or holds something else.
    """
    path = existing(path)
    try:
        reader = _Reader(_decompressed(path.read_bytes()))
        objects = reader.file()
    except DAMAGED as error:
        raise InputError(f"{path}: not a whole R data file ({error}); fetch it again") from error
    if name not in objects:
        raise InputError(f"{path}: no object '{name}' (it has: {', '.join(objects)})")
    return objects[name]


def _decompressed(raw: bytes) -> bytes:
    for mark, module in ((b"BZh", bz2), (b"\x1f\x8b", gzip), (b"\xfd7zXZ\x00", lzma)):
        if raw.startswith(mark):
            return module.decompress(raw)
    return raw


class _Reader:
    def __init__(self, raw: bytes):
        if raw[:5] not in (b"RDX2\n", b"RDX3\n") or raw[5:7] != b"X\n":
            raise ValueError("it does not begin as a binary R data file")
        self.raw, self.bytes, self.at = raw, np.frombuffer(raw, dtype=np.uint8), 7
        self.references: list[str] = []
        # one Python string per distinct value: the same gene comes in every list
        self.known: dict[int, str] = {}
        version, _, _ = (self.integer() for _ in range(3))
        if version == 3:
            self.text(self.integer())

    def file(self) -> dict:
        """Return the objects of the file by name."""
        out = {}
        while True:
            flags = self.integer()
            kind = flags & 0xFF
            if kind == NIL:
                return out
            if kind != PAIRLIST or not flags & HAS_TAG:
                raise ValueError(f"an object of type {kind} where a named object was expected")
            name = self.symbol()
            out[name] = self.value()

    def value(self):
        flags = self.integer()
        kind = flags & 0xFF
        if kind == STRINGS:
            out = self.strings(self.integer())
        elif kind == LIST:
            out = [self.value() for _ in range(self.integer())]
        else:
            raise ValueError(f"R type {kind}, but only lists of character vectors are read here")
        names = self.attributes().get("names") if flags & HAS_ATTRIBUTES else None
        if kind == LIST:
            if names is None:
                raise ValueError("a list without names")
            out = dict(zip(names, out, strict=True))
        return out

    def attributes(self) -> dict:
        out = {}
        while (flags := self.integer()) & 0xFF == PAIRLIST:
            name = self.symbol()
            out[name] = self.value()
        if flags & 0xFF != NIL:
            raise ValueError(f"attributes of R type {flags & 0xFF}")
        return out

    def symbol(self) -> str:
        flags = self.integer()
        if flags & 0xFF == REFERENCE:
            index = flags >> 8 or self.integer()
            return self.references[index - 1]
        if flags & 0xFF != SYMBOL or self.integer() & 0xFF != CHAR:
            raise ValueError("a name was expected")
        self.references.append(self.text(self.integer()))
        return self.references[-1]

    def strings(self, n: int) -> np.ndarray:
        start, size, code, end = _scan(self.bytes, self.at, n)
        if end < 0:
            raise EOFError("a character vector is cut short")
        self.at = int(end)
        distinct, first, back = np.unique(code, return_index=True, return_inverse=True)
        values = np.empty(len(distinct), dtype=object)
        for i, (c, j) in enumerate(zip(distinct.tolist(), first.tolist(), strict=True)):
            if c not in self.known:
                length = max(0, int(size[j]))
                self.known[c] = self.raw[start[j] : start[j] + length].decode()
            values[i] = self.known[c]
        return values[back.ravel()]

    def integer(self) -> int:
        (out,) = struct.unpack_from(">i", self.raw, self.at)
        self.at += 4
        return out

    def text(self, n: int) -> str:
        if self.at + n > len(self.raw):
            raise EOFError("a string is cut short")
        self.at += n
        return self.raw[self.at - n : self.at].decode()


@numba.njit(cache=True)
def _scan(raw, at, n):
    """Start, length and 64-bit FNV-1a hash of n strings, and their end (-1: beyond the file)."""
    start = np.empty(n, dtype=np.int64)
    size = np.empty(n, dtype=np.int64)
    code = np.empty(n, dtype=np.uint64)
    for i in range(n):
        if at + 8 > len(raw) or raw[at + 3] != CHAR:
            return start, size, code, -1
        length = (
            np.int64(raw[at + 4]) << 24 | np.int64(raw[at + 5]) << 16 | np.int64(raw[at + 6]) << 8
        ) | np.int64(raw[at + 7])
        at += 8
        if length == 0xFFFFFFFF:
            length = -1  # a missing value
        if at + length > len(raw):
            return start, size, code, -1
        value = np.uint64(0xCBF29CE484222325)
        for j in range(length):
            value = (value ^ np.uint64(raw[at + j])) * np.uint64(0x100000001B3)
        start[i], size[i], code[i] = at, length, value
        at += max(0, length)
    return start, size, code, at
