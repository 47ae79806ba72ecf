"""Random damage: bytes cut, flipped, repeated, or with something put in; other arrays."""

import io
import zipfile

import numpy as np

_HOSTILE = (
    b"[" * 3000, b"1e999", b"\x00", b"NaN", b"-", b"\xff\xff\xff\x7f", b'{"a":' * 3000,
    b"99999999999999", b"null", b"../../../etc/passwd", b"}", b"\n", b"\xc3\x28",
)  # fmt: skip


def damaged(content, generator):
    """The bytes cut, flipped, repeated, or with something put in."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(data) + 1)
        kind = generator.randrange(6)
        if kind == 0:
            data = data[:at]
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << generator.randrange(8)
        elif kind == 2:
            data[at:at] = generator.choice(_HOSTILE)
        elif kind == 3:
            end = at + generator.randrange(40)
            data[at:end] = b""
        elif kind == 4:
            data[at:at] = data[at : at + generator.randrange(200)]
        elif at < len(data):
            data[at] = generator.randrange(256)
        if not data:
            break
    return bytes(data)


def damaged_file(content, generator):
    """The same of a file; of an archive half of the time a member, so that checksums are right."""
    if not content.startswith(b"PK") or generator.random() < 0.5:
        return damaged(content, generator)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = generator.choice(sorted(members))
    members[name] = damaged(members[name], generator)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for key, value in members.items():
            archive.writestr(key, value)
    return file.getvalue()


def odd(value, generator):
    """Something else in the place of an array: another dtype or shape, other numbers, no array."""
    value = np.asarray(value)
    kind = generator.randrange(8)
    if kind == 0:
        dtype = generator.choice(["?", "i1", "u8", "f2", ">f8", "c16", "S3", "U3", "M8[s]", "V4"])
        return np.zeros(value.shape, dtype)
    if kind == 1:
        return value[None] if generator.random() < 0.5 else value.reshape(-1)
    if kind == 2 and value.ndim:
        return value[: generator.randrange(len(value) + 1)]
    if kind == 3:
        return np.zeros((0, *value.shape))
    if kind == 4 and value.dtype.kind in "fiu":
        extreme = generator.choice([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0, -1.0, 1e-300])
        with np.errstate(all="ignore"):
            return np.where(np.arange(value.size).reshape(value.shape) % 3, value, extreme)
    if kind == 5:
        return np.array(generator.choice([0.0, -1, 2**62, "text", b"bytes", True]))
    if kind == 6:
        return np.concatenate([np.ravel(value)] * 2)
    return value[..., :1] if value.ndim else value
