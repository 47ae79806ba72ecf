"""Hostile content of files by kind, each from a seed: whoever writes it knows the format.

A generator takes the bytes of an honest file and random numbers, and gives the bytes of a hostile
one. What random damage does is in `damage`.
"""

import io
import json
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections import OrderedDict
from contextlib import suppress

import numpy as np
import torch

from tests.fuzz.damage import odd

# Words and numbers --------------------------------------------------------------------------------

#: What stands in the place of options of the command line.
INTEGERS = ("-1", "0", "1000000000000", "1" + 30 * "0", "9" * 5000, "x", "nan", "1e3", "", "\udcff")
NUMBERS = ("-1", "0", "nan", "inf", "-inf", "1e308", "-1e-320", "1e30", "x", "", "1" * 400)
TEXTS = ("", "\x00", "../../..", "/", ".", "x" * 5000, "\udcff\udcfe", "-", "a\nb", "none", "🦆",
         "\x1b[2J\x1b]0;owned\x07", "a\u202eb")  # fmt: skip

#: What stands in the place of `WORLD_SIZE` and `RANK`; None where there is none.
RANKS = (None, "", "0", "1", "-1", "2", "four", "9" * 30, "1e3", "\u0661", "0x1", " 1", "1_0")

#: JSON in the place of a value, as it stands in a file.
_JSON = (
    *("9" * 20_000, "1e999", "-1e999", "1e308", "-1e308", "1e30", "1e20", "1e-320", "-5", "0"),
    *("NaN", "Infinity", "-Infinity", "true", "null", "[]", "{}", "[[1]]", '{"a": 1}', "1.5"),
    *(str(2**63), str(-(2**70)), '""', '"a"', '"9"', '"' + "x" * 5000 + '"', '"\\u001b[2J"'),
    *('"\\u0000"', '"\\ud800"', '"\\u202e"', '"a\\nb"', '"../../etc/passwd"'),
    *("[" * 900 + "]" * 900, '{"a":' * 300 + "1" + "}" * 300, "[" * 3000, "[1, [2], 3]"),
)

#: Words in the place of one of a text file.
_WORDS = (
    *("9" * 5000, "9" * 20, "-1", "0", "1e999", "-1e308", "1e308", "1e20", "nan", "inf", "1e-320"),
    *("{", "}", "", "\x00", "\x1b[2J", "\u0663", "#", ":", "x" * 3000, "1_0", "0x10", "None"),
    *("\ud7ff", "Frames:", "JOINT", "End", "CHANNELS", "OFFSET", "MOTION", "begin", "end", ":root"),
)

#: Names in the place of those of people, frames, joints and files.
NAMES = (
    *("a\0b", "\ud800", "9" * 20_000, 2**70, -(2**70), "", "\x1b[2J", "a b", "a-b", "A-B", "a_b"),
    *("../a", "/a", ".", "x" * 999, "\u202ea", "con", "a\nb", 2**53 + 1, -1, True, 1.5, None),
    *("</script><script>alert(1)</script>", "<!--", "'\"&lt;"),
)


def nested(depth, generator):
    """Text that opens something over and over, and may or may not close it."""
    opening, closing = generator.choice((("[", "]"), ('{"a":', "}"), ("[[", "]]"), ("(", ")")))
    return opening * depth + generator.choice(("", "1", "1" + closing * depth))


# JSON ---------------------------------------------------------------------------------------------


def hostile_json(content, generator):
    """A document of which one to three values or keys are something else."""
    document = json.loads(content)
    raw = {}
    for number in range(generator.choice((1, 1, 2, 3))):
        place, key = generator.choice(list(_places(document)) or [(None, None)])
        kind = generator.randrange(6)
        if place is None:
            document = "@0@"
            raw['"@0@"'] = generator.choice(_JSON)
        elif kind == 0 and isinstance(place, list):
            place[key : key + 1] = [place[key]] * generator.choice((0, 2, 50))
        elif kind == 0:
            place[generator.choice([name for name in NAMES if type(name) is str])] = place.pop(key)
        elif kind == 1:
            place[key] = generator.choice(NAMES)
        elif kind == 2:
            factor = 10.0 ** generator.choice((-300, -30, -7, 7, 20, 25, 30, 37, 38, 305))
            if generator.random() < 0.5:
                document = _scaled(document, factor)
            else:
                place[key] = _scaled(place[key], factor)
        else:
            mark = f"@{number}@"
            place[key], raw[f'"{mark}"'] = mark, generator.choice(_JSON)
    text = json.dumps(document)
    for mark, value in raw.items():
        text = text.replace(mark, value)
    return text.encode("utf-8", "surrogatepass")


def deep_json(content, generator):
    """Brackets without end, or a document within them."""
    return nested(generator.choice((50, 900, 1000, 20_000, 200_000)), generator).encode()


def _places(value):
    """Every container in a document with each of its keys."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict | list):
            for key in item if isinstance(item, dict) else range(len(item)):
                yield item, key
                left.append(item[key])


def _scaled(value, factor):
    if isinstance(value, list):
        return [_scaled(item, factor) for item in value]
    if isinstance(value, dict):
        return {key: _scaled(item, factor) for key, item in value.items()}
    return value * factor if type(value) in (int, float) else value


# Texts --------------------------------------------------------------------------------------------


def hostile_words(content, generator):
    """A text of which some words are others, or lines come another time, or very often."""
    text = content.decode()
    for _ in range(generator.choice((1, 1, 2, 4))):
        if generator.random() < 0.7:
            words = re.split(r"(\s+)", text)
            at = generator.randrange(len(words))
            words[at] = generator.choice(_WORDS)
            text = "".join(words)
        else:
            lines = text.splitlines(keepends=True) or [""]
            at = generator.randrange(len(lines))
            times = generator.choice((0, 2, 3, 100, 5000))
            lines[at : at + 1] = [lines[at]] * times
            text = "".join(lines)
    return text.encode("utf-8", "surrogatepass")


def figure(names, *, nested=True, frames=1, channels="0"):
    """A BVH file with the first joint turning, and others below it."""
    lines = ["HIERARCHY", f"ROOT {names[0]}", "{", "OFFSET 0 0 0", "CHANNELS 1 Xrotation"]
    for name in names[1:]:
        lines += [f"JOINT {name}", "{", "OFFSET 0 1 0", f"CHANNELS {channels}"]
        lines += [] if nested else ["}"]
    lines += ["}"] * (len(names) if nested else 1)
    return "\n".join([*lines, "MOTION", f"Frames: {frames}", "Frame Time: 0.1", *["1"] * frames])


def hostile_figure(content, generator):
    """A figure of many bones, one in another or beside each other, of different names or alike."""
    count = generator.choice((1, 2, 1000, 4096, 4097, 20_000))
    alike = generator.random() < 0.3
    names = ["a" if alike else f"j{number}" for number in range(count)]
    frames = generator.choice((1, 1, 2, 300))
    channels = generator.choice(("0", "0", "-1", "9" * 5000, "7", "1.5"))
    return figure(names, nested=generator.random() < 0.5, frames=frames, channels=channels).encode()


def chain(count):
    """An ASF skeleton that is a chain of bones, the last of which comes first."""
    bones = "".join(
        f"begin\nname b{n}\ndirection 0 1 0\nlength 1\naxis 0 0 0 XYZ\nend\n"
        for n in reversed(range(count))
    )
    order = "".join(f"b{n} b{n + 1}\n" for n in range(count - 1))
    return (
        ":units\nlength 1\nangle deg\n:root\norder TX TY TZ RX RY RZ\naxis XYZ\n"
        "position 0 0 0\norientation 0 0 0\n"
        f":bonedata\n{bones}:hierarchy\nbegin\nroot b0\n{order}end\n"
    )


def hostile_chain(content, generator):
    """A skeleton of very many bones."""
    return chain(generator.choice((1, 100, 3000, 4096, 5000))).encode()


def hostile_log(content, generator):
    """The log of a training with other rows: steps that are none, columns that are missing."""
    junk = (b"junk", b"\xff\xfe\x00", b"\0\0", b"step\nx\n", b'"' * 200_000, b"", b"\n" * 5000,
            b"step,seconds\n1,2\n", b"," * 100_000)  # fmt: skip
    if generator.random() < 0.4:
        return generator.choice(junk)
    lines = content.decode().splitlines() or [""]
    cells = lines[-1].split(",")
    cells[generator.randrange(len(cells))] = generator.choice(_WORDS)
    lines[-1] = ",".join(cells)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


# Arrays -------------------------------------------------------------------------------------------

_DESCRIPTIONS = ("'<f4'", "'<f8'", "'|b1'", "'<i8'", "'<c16'", "'|V0'", "'<U0'", "'|S0'", "'|S1'",
                 "'<U7'", "'|O'", "'<M8[s]'", "[('a', '|V0')]", "[('a', '<f4'), ('b', '<i2')]",
                 "'f'", "3", "'<f" + "9" * 400 + "'")  # fmt: skip
_SIZES = (
    *("0", "1", "2", "17", "-6", "True", "False", "1.0", "None", "2L", "1000000000000"),
    *("9223372036854775807", "9223372036854775808", "4611686018427387904", "9" * 4400),
)


def npy(header, data=b"", version=1):
    """An array in NumPy's format as a header says, true or not."""
    text = header.encode("latin1" if version < 3 else "utf-8")
    text += b" " * (-(len(text) + (11 if version == 1 else 13)) % 64) + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes((version, 0)) + size + text + data


def hostile_npy(content, generator):
    """An array whose header says what no array is."""
    if generator.random() < 0.1:
        return npy("{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 300 + "}")
    sizes = [generator.choice(_SIZES) for _ in range(generator.randrange(5))]
    if generator.random() < 0.3:
        sizes += ["17", "2"]
    shape = "(" + "".join(f"{size}, " for size in sizes) + ")"
    order = generator.choice(("False", "False", "True", "1", "None"))
    header = f"{{'descr': {generator.choice(_DESCRIPTIONS)}, 'fortran_order': {order}, "
    header += f"'shape': {shape}, }}"
    data = generator.randbytes(generator.choice((0, 1, 64, 136, 5000)))
    version = generator.choice((1, 1, 1, 2, 3))
    return npy(header if len(header) < 60_000 or version > 1 else header[:60_000], data, version)


def members(content):
    """Name to bytes of an archive's members."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(entries, *, deflated=True):
    """An archive of names and bytes, names as often as they come."""
    file = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, data in entries:
                archive.writestr(name, data)
    return file.getvalue()


def stored_array(values):
    """An array in NumPy's format, objects pickled."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(values), allow_pickle=True)
    return file.getvalue()


def hostile_npz(content, generator):
    """An archive with other headers, far more in it than it holds, or odd members."""
    arrays = members(content)
    name = generator.choice(sorted(arrays))
    kind = generator.randrange(8)
    if kind <= 2:
        arrays[name] = hostile_npy(b"", generator)
    elif kind == 3:
        # Zeros of which there are a thousand times as many as bytes.
        arrays[name] = stored_array(np.zeros(generator.choice((2**18, 2**21, 2**24))))
    elif kind == 4:
        count = generator.choice((10, 4096, 5000))
        return packed([*arrays.items(), *((f"{n}.npy", b"") for n in range(count))])
    elif kind == 5:
        odd_name = generator.choice(("../a.npy", "/a.npy", "a/", " ", "a" * 60_000, "\x1b[2J"))
        return packed([*arrays.items(), (odd_name, arrays[name])])
    elif kind == 6:
        return packed([*arrays.items(), *[(name, arrays[name])] * generator.choice((1, 30))])
    else:
        arrays[name] = stored_array(np.array([Asks(print, "EXECUTED")], dtype=object))
    return packed(arrays.items(), deflated=generator.random() < 0.7)


def odd_arrays(content, generator):
    """An archive of which one array is of another dtype or shape, has other numbers, or is gone."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    key = generator.choice(sorted(arrays))
    if generator.random() < 0.1:
        del arrays[key]
    else:
        arrays[key] = odd(arrays[key], generator)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def hostile_texts(content, generator):
    """An archive of which some texts are others: escapes, tags of pages, ways out of a folder."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    chosen = [name for name, values in arrays.items() if values.dtype.kind == "U"]
    texts = [name for name in NAMES if type(name) is str]
    for name in generator.sample(chosen, generator.randint(1, len(chosen))):
        values = [generator.choice((word, *texts)) for word in arrays[name].ravel().tolist()]
        arrays[name] = np.array(values, np.str_).reshape(arrays[name].shape)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def extreme_numbers(content, generator):
    """An archive whose floating-point numbers are all of another size."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    chosen = [name for name, values in arrays.items() if values.dtype.kind == "f"]
    for name in generator.sample(chosen, generator.randint(1, len(chosen))):
        power = generator.choice((-320, -30, 7, 12, 20, 25, 30, 37, 100, 308))
        with np.errstate(all="ignore"):
            arrays[name] = arrays[name].astype(np.float64) * 10.0**power
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


# Pickles ------------------------------------------------------------------------------------------

#: Integers so far apart have one hash.
HASH = 2**61 - 1


class Asks:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def put_over_and_over(count):
    """A list under so many numbers of the memo, all of one hash."""
    return b"]" + b"".join(b"p%d\n" % (number * HASH) for number in range(count)) + b"."


def array_over_and_over(count):
    """The same bytes, put into another array each time."""
    head = b"\x80\x02cnumpy\ndtype\nq\x00X\x02\x00\x00\x00f8\x85Rq\x01"
    made = b"cnumpy._core.numeric\n_frombuffer\nq\x02C\x00"
    raw = b"B" + struct.pack("<I", 2**20) + bytes(2**20) + b"q\x03"
    call = b"h\x02(h\x03h\x01J" + struct.pack("<i", 2**17) + b"\x85X\x01\x00\x00\x00CtR"
    return head + made + b"0" + raw + b"0](" + call * count + b"e."


def colliding(generator):
    """A container whose keys all have one hash."""
    count = generator.choice((9, 4000))
    kind = generator.randrange(5)
    if kind == 0:
        return {number * HASH: None for number in range(count)}
    if kind == 1:
        return {-number * HASH: None for number in range(2, count)}
    if kind == 2:
        return {number * HASH for number in range(count)}
    if kind == 3:
        return frozenset(number * HASH for number in range(count))
    return {complex(number, 1): (number, number) for number in range(9)}


def ragged(generator):
    """What no array can be made of, or not the one that is expected."""
    return generator.choice(
        ([[1.0, 2.0], [3.0]], [[1.0], "x"], 10**5000, [10**400], {"a": 1}, None, "poses", [],
         [np.zeros(3), np.zeros(2)], np.array("text"), np.array(3.0), [[[[]]]], [[]] * 3, 2**70,
         [np.zeros((0, 3))], np.zeros(5, "S1"), b"bytes", [None], np.zeros(3, bool), {1: [2]},
         [np.full((5, 72), np.nan)], np.full((5, 3), 1e308), -0.0, True)
    )  # fmt: skip


def _wrapped(value, generator):
    """The value within containers, some of which hold themselves."""
    kind = generator.randrange(5)
    if kind == 0:
        return [value] * generator.choice((0, 1, 2, 100))
    if kind == 1:
        return {generator.choice(("a", 1, None, True, 2.5)): value}
    if kind == 2:
        itself = [value]
        itself.append(itself)
        return itself
    if kind == 3:
        for _ in range(generator.choice((2, 30, 400))):
            value = (value, value)
        return value
    return OrderedDict([("a", value)])


def hostile_pickle(content, generator):
    """A pickle that runs code, holds itself, has keys that collide, or announces without end."""
    kind = generator.randrange(9)
    if kind == 0:
        command = generator.choice((b"cos\nsystem\n", b"cposix\nsystem\n", b"cbuiltins\nexec\n",
                                    b"cnumpy\nload\n", b"c__builtin__\neval\n"))  # fmt: skip
        return command + b"(S'touch EXECUTED'\ntR."
    if kind == 1:
        return put_over_and_over(generator.choice((100, 20_000)))
    if kind == 2:
        return array_over_and_over(generator.choice((2, 200, 500)))
    if kind == 3:
        code = generator.choice(
            (b"\x80\x05\x96", b"\x80\x04\x95", b"\x80\x04\x8e", b"\x80\x04\x8d")
        )
        return code + struct.pack("<Q", generator.choice((9, 2**31, 2**40, 2**63))) + b"."
    if kind == 4:
        opening = generator.choice((b"(", b"]", b"\x8f", b"}", b"(l", b")\x85", b"0", b"2"))
        return b"\x80\x04" + opening * generator.choice((1000, 100_000)) + b"l."
    if kind == 5:
        return pickle.dumps(np.zeros(3, "S1"), 4).replace(b"S1", b"S0")
    protocol = generator.randrange(5)
    value = colliding(generator) if kind == 6 else ragged(generator)
    if generator.random() < 0.7:
        value = _wrapped(value, generator)
    return pickle.dumps(value, protocol)


def odd_pickle(content, generator):
    """An honest pickle of a dict of which one entry is something else."""
    stored = pickle.loads(content)
    key = generator.choice(sorted(stored))
    kind = generator.randrange(5)
    if kind == 0:
        del stored[key]
    elif kind == 1 and isinstance(stored[key], list):
        stored[key] = [odd(value, generator) for value in stored[key]]
    elif kind == 1:
        stored[key] = odd(stored[key], generator)
    elif kind == 2 and isinstance(stored[key], list) and stored[key]:
        stored[key][generator.randrange(len(stored[key]))] = ragged(generator)
    elif kind == 3:
        stored[generator.choice(NAMES)] = colliding(generator)
    else:
        stored[key] = ragged(generator)
    return pickle.dumps(stored, generator.choice((2, 2, 4)))


def odd_objects(content, generator):
    """An archive whose pickled objects are others."""
    arrays = members(content)
    name = generator.choice(sorted(arrays))
    stored = np.load(io.BytesIO(arrays[name]), allow_pickle=True)
    if generator.random() < 0.3:
        arrays[name] = npy("{'descr': '|O', 'fortran_order': False, 'shape': (), }",
                           hostile_pickle(b"", generator))  # fmt: skip
    elif stored.dtype == object and stored.shape == ():
        value = stored.item()
        place, key = generator.choice(list(_places(value)))
        place[key] = generator.choice((ragged, colliding))(generator)
        try:
            arrays[name] = stored_array(np.array(value, dtype=object))
        except ValueError:
            arrays[name] = hostile_npy(b"", generator)
    else:
        arrays[name] = stored_array(odd(stored, generator))
    return packed(arrays.items(), deflated=generator.random() < 0.5)


# HDF5 and MATLAB ----------------------------------------------------------------------------------


def hostile_hdf5(content, generator):
    """HDF5 that reaches beyond itself: other files, links, filters, sizes of far more bytes."""
    import h5py

    from tests.io.test_sandbox import HOSTILE

    file = io.BytesIO(content)
    block = 512 if content.startswith(b"MATLAB") else 0
    with h5py.File(file, "r+", userblock_size=None) as opened:
        changes = [*HOSTILE, _huge, _odd_type, _empty, _many]
        change = generator.choice(changes)
        # Some change what only a result has.
        with suppress(KeyError, ValueError, OSError, TypeError):
            change(opened) if change in HOSTILE else change(opened, generator)
    changed = file.getvalue()
    return content[:block] + changed[block:]


def _datasets(file):
    import h5py

    found = []

    def note(name, item):
        # Anything but None would end the visit.
        if isinstance(item, h5py.Dataset):
            found.append(name)

    file.visititems(note)
    return sorted(found)


def _put(file, generator, **options):
    """Another dataset in the place of one."""
    name = generator.choice(_datasets(file))
    del file[name]
    return file.create_dataset(name, **options)


def _huge(file, generator):
    size = generator.choice(((10**6, 10**6), (2**40,), (3, 2**30, 17), (2**31, 17, 3)))
    chunks = tuple(min(n, 64) for n in size)
    _put(file, generator, shape=size, dtype="f4", chunks=chunks, compression="gzip")


def _odd_type(file, generator):
    import h5py

    kinds = ("c8", "S9", h5py.string_dtype(), h5py.vlen_dtype(np.float32), "V5", "?", "i1", "f2",
             np.dtype([("a", "f4"), ("b", "i8")]), h5py.enum_dtype({"a": 1}), ">f8")  # fmt: skip
    shape = generator.choice(((), (0,), (1,), (2, 17, 3), (2, 1, 1, 1, 1), (5,)))
    _put(file, generator, shape=shape, dtype=generator.choice(kinds))


def _empty(file, generator):
    import h5py

    _put(file, generator, data=h5py.Empty("f4"))


def _many(file, generator):
    for number in range(generator.choice((10, 3000))):
        file.create_group(f"g{number}").attrs["a"] = number


def odd_matlab(content, generator):
    """A version 5 file with odd variables, or with far more in them than there are bytes."""
    from scipy.io import loadmat, savemat

    if generator.random() < 0.3:
        pack = zlib.compressobj(9)
        count = generator.choice((1, 40, 200))
        bomb = b"".join(pack.compress(bytes(2**20)) for _ in range(count)) + pack.flush()
        tag = (15).to_bytes(4, "little") + len(bomb).to_bytes(4, "little")
        return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + tag + bomb
    stored = {k: v for k, v in loadmat(io.BytesIO(content)).items() if not k.startswith("__")}
    key = generator.choice(sorted(stored))
    if stored[key].dtype == object:
        flat = stored[key].ravel()
        flat[generator.randrange(len(flat))] = odd(flat[0], generator)
        stored[key] = flat.reshape(stored[key].shape)
    else:
        stored[key] = odd(stored[key], generator)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            savemat(file, stored, do_compression=generator.random() < 0.5)
        except (ValueError, TypeError):
            return content
    return file.getvalue()


# Weights ------------------------------------------------------------------------------------------


def safetensors(header, data):
    """A file of safetensors with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def hostile_safetensors(content, generator):
    """Weights that are NaN, a configuration that does not fit them, or a header of other sizes."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    names = [name for name in header if name != "__metadata__"]
    kind = generator.randrange(8)
    if kind == 0:
        start, end = header[generator.choice(names)]["data_offsets"]
        data[start:end] = (b"\x00\x00\xc0\x7f" * (end - start))[: end - start]
    elif kind <= 3 and "config" in header.get("__metadata__", {}):
        text = hostile_json(header["__metadata__"]["config"].encode(), generator)
        header["__metadata__"]["config"] = text.decode("utf-8", "replace")
    elif kind == 4:
        entry = header[generator.choice(names)]
        entry["shape"] = [generator.choice((0, 1, 2**31, 2**62, -1, 1.5))] * generator.randrange(4)
    elif kind == 5:
        entry = header[generator.choice(names)]
        entry["data_offsets"] = [generator.choice((0, 4, -1, 2**40, 2**63)) for _ in range(2)]
    elif kind == 6:
        entry = header[generator.choice(names)]
        entry["dtype"] = generator.choice(("F64", "BOOL", "I8", "U8", "F8_E4M3", "x", "BF16", 3))
    else:
        return struct.pack("<Q", generator.choice((0, 1, 2**20, 2**40, 2**63, length - 1)))[
            : generator.choice((8, 8, 5))
        ] + bytes(content[8:])
    return safetensors(header, bytes(data))


def rebuilt(generator):
    """A tensor over a storage, of whatever shape."""
    base = torch.arange(12.0).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=base, dtype=torch.float32, _internal=True)
    numbers = (0, 1, 2, 12, 13, -1, True, 2.0, 10**9, 2**63, 2**70)
    dims = generator.randrange(4)
    size, stride = (tuple(generator.choice(numbers) for _ in range(dims)) for _ in range(2))
    arguments = (typed, generator.choice((0, 0, 1, -1, 2**40)), size, stride, False, OrderedDict())
    return Asks(torch._utils._rebuild_tensor_v2, *arguments)


def hostile_torch(content, generator):
    """A file of `torch.save`, of either kind, that asks for more than tensors."""
    kind = generator.randrange(6)
    value = (
        Asks(bytearray, 10**10),
        Asks(torch.Tensor, 10**5, 10**5),
        {"model": colliding(generator), "state_dict": 3},
        rebuilt(generator),
        {"layer1.0.conv1.weight": rebuilt(generator), "conv1.weight": rebuilt(generator)},
        Asks(exec, "open('EXECUTED', 'w')"),
    )[kind]
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=generator.random() < 0.5)
    return file.getvalue()


def hostile_sequence(content, generator):
    """A file of torch before 1.6 of which a pickle or the bytes of a storage are others."""
    file = io.BytesIO(content)
    for _ in range(3):
        pickle.load(file)
    start = file.tell()
    parts = [content[:start]]
    # The fourth ends before the list of storages, which begins like it.
    end = content.index(b"\x80\x02]", start)
    storages = content.index(b"e.", end) + 2
    parts += [content[start:end], content[end:storages], content[storages:]]
    changed = generator.randrange(4)
    if changed == 3:
        at = generator.choice((0, 8, 16))
        number = struct.pack("<q", generator.choice((0, -1, 1, 2**31, 2**62)))
        parts[3] = parts[3][:at] + number + parts[3][at + 8 :]
    elif changed == 2:
        keys = generator.choice(([], [[]], ["0"] * 3, {"0": 1}, [None], "0", [1], 3, ["x"]))
        parts[2] = pickle.dumps(keys, 2)
    elif changed == 1:
        parts[1] = hostile_pickle(b"", generator)
    else:
        others = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, None, 1000, [1])
        parts[0] = b"".join(pickle.dumps(generator.choice(others), 2) for _ in range(3))
    return b"".join(parts)


def large_weights(content, generator):
    """Weights that are finite, and too large for what is computed with them, or all the same."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    names = [name for name, entry in header.items() if entry.get("dtype") == "F32"]
    for name in generator.sample(names, generator.choice((1, 1, 5, len(names)))):
        start, end = header[name]["data_offsets"]
        numbers = np.frombuffer(bytes(data[start:end]), "<f4")
        kind = generator.randrange(4)
        with np.errstate(all="ignore"):
            if kind == 0:
                numbers = np.full_like(numbers, generator.choice((0.0, 1.0, -1.0, 3e38, 1e-38)))
            else:
                factor = 10.0 ** generator.choice((-30, -5, 3, 6, 12, 20, 30))
                numbers = np.clip(numbers.astype("f8") * factor, -3e38, 3e38).astype("<f4")
        data[start:end] = numbers.tobytes()
    return content[: 8 + length] + bytes(data)


def odd_state(state, generator):
    """The state of a training of which one entry is gone or something else."""
    state = dict(state)
    key = generator.choice(sorted(state))
    kind = generator.randrange(4)
    numbers = (float("nan"), -5, 1e300, 10**30, True, None, float("inf"), -1, "x", 3, 0, 2**62)
    if kind == 0:
        del state[key]
    elif kind == 1:
        key = generator.choice(("step", "seconds", "best", "losses", "step"))
        state[key] = generator.choice(numbers)
    elif kind == 2:
        state[key] = generator.choice(({}, [], torch.zeros(3), torch.full((3,), torch.nan), "x"))
    else:
        inner = state.get("parts", {})
        part = generator.choice(sorted(inner))
        changed = dict(inner[part])
        name = generator.choice(sorted(changed, key=str))
        changed[name] = generator.choice((torch.zeros(2), None, {}, torch.full((1,), torch.nan)))
        state["parts"] = {**inner, part: changed}
    return state


# Pictures and points ------------------------------------------------------------------------------

EXIF = (
    b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"II*\0", b"MM", b"\xff" * 40, b"Exif\0\0MM\0*",
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0",
    b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\1\0\0\0\x06\0\0\0" * 9,
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\1\0\0\0\x08\0\0\0",
)  # fmt: skip


def hostile_exif(content, generator):
    """A picture whose EXIF data are broken, in each format that has them."""
    from PIL import Image

    exif = bytearray(generator.choice(EXIF))
    for _ in range(generator.randrange(3)):
        exif[generator.randrange(len(exif))] = generator.randrange(256)
    file = io.BytesIO()
    kind = generator.choice(("WEBP", "PNG", "JPEG", "WEBP"))
    Image.new("RGB", (9, 7)).save(file, kind, exif=bytes(exif))
    return file.getvalue()


def hostile_picture(content, generator):
    """A picture of very many pixels or frames, of another mode, or none at all."""
    from PIL import Image

    kind = generator.randrange(6)
    file = io.BytesIO()
    if kind == 5:
        return jpeg_of_scans(generator.choice((1, 2000)), generator.choice((1, 12, 200, 5000)))
    if kind == 0:
        side = generator.choice((1, 3000, 9000))
        Image.new("1", (side, side)).save(file, generator.choice(("PNG", "GIF", "TIFF", "BMP")))
    elif kind == 1:
        frames = [Image.new("P", (5, 5), n % 250) for n in range(generator.choice((2, 300)))]
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    elif kind == 2:
        mode = generator.choice(("1", "L", "LA", "P", "RGBA", "I", "F", "I;16", "CMYK", "YCbCr"))
        Image.new(mode, (4, 3)).save(file, "TIFF")
    elif kind == 3:
        return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(EXECUTED) print\nshowpage\n"
    else:
        sizes = (0, 1, 2**16, 2**31 - 1, 2**32 - 1)
        head = struct.pack(">II", *(generator.choice(sizes) for _ in range(2)))
        chunk = (
            b"IHDR" + head + bytes((generator.choice((1, 8, 16)), generator.choice((0, 2, 3, 6))))
        )
        chunk += bytes(3)
        check = struct.pack(">I", zlib.crc32(chunk))
        return (
            b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + check + generator.randbytes(50)
        )
    return file.getvalue()


def jpeg_of_scans(side, count):
    """A JPEG whose last scan, of some bytes, comes another time and another."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    start = content.rindex(b"\xff\xda")
    return content[:-2] + content[start:-2] * (count - 1) + content[-2:]


def hostile_c3d(content, generator):
    """Points of which the header or the parameters announce other numbers."""
    data = bytearray(content)
    for _ in range(generator.choice((1, 2, 4))):
        at = 2 * generator.randrange(256) if generator.random() < 0.6 else generator.randrange(2048)
        number = generator.choice((0, 1, 0xFFFF, 0x7FFF, 0x8000, 255, 4096))
        data[at : at + 2] = struct.pack("<H", number)
    return bytes(data)


# Names of people ----------------------------------------------------------------------------------


def labels(generator):
    """Labels of people of which some make one name of a file."""
    alike = ("a-b", "a b", "A-B", "a/b", "a_b", "a-b_2", "a\x1bb", "", "-", "x" * 60, "x" * 61,
             "x" * 300, "..", "/", "ä", "Ä", "\u202e", "a\0b", "a.bvh", "con")  # fmt: skip
    return [generator.choice(alike) for _ in range(generator.choice((1, 2, 5, 30)))]


def keypoints(frames=2, **entry):
    """COCO-style results of one person in some frames, as a list of entries."""
    points = np.random.default_rng(0).uniform(0, 500, (frames, 17, 3))
    points[..., 2] = 0.9
    entries = [point.ravel().round(3).tolist() for point in points]
    return [
        {"image_id": frame, "category_id": 1, "keypoints": values, **entry}
        for frame, values in enumerate(entries)
    ]


#: What stands in a configuration in the place of a value.
VALUES = (
    *(-1, 0, 1, 2**62, 10**400, -1.5, 0.5, 1e300, float("nan"), float("inf"), True, None),
    *("", "x", "../..", "\x00", "\udcff"),
    *([], [1, 2], [2, 1], ["a", "b"], [[1]], {}, {"a": 1}, {"joints": 9}),
)
