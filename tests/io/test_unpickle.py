"""The restricted unpickler, on pickles of every protocol and on hostile ones."""

import contextlib
import io
import os
import pickle
import struct
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from propose_prob.errors import InputError
from propose_prob.io.unpickle import load_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(tmp_path, data):
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    return load_pickle(path)


def old_numpy(data):
    """The same pickle as numpy 1 writes it; only protocols without length prefixes of names."""
    return data.replace(b"numpy._core.", b"numpy.core.")


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, np.ndarray) and one.dtype == object:
        assert one.shape == other.shape
        for a, b in zip(one.flat, other.flat, strict=True):
            same(a, b)
    elif isinstance(one, np.ndarray | np.generic):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        assert one == other


CONTENT = {
    "float": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(12)[::3],
    "float32": np.linspace(0, 1, 5, dtype=np.float32),
    "uint32": np.array([[4294967295, 0], [0, 1]], dtype=np.uint32),
    "big": np.arange(3, dtype=">i2"),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "empty": np.empty((0, 3)),
    "zero_d": np.array(7.0),
    "text": np.array(["lbs", "dq"]),
    "bytes": np.array([b"lbs", b"dq"]),
    "objects": np.array([{"a": np.arange(2)}, None, "x"], dtype=object),
    "scalar": np.float64(0.1),
    "flag": np.bool_(True),
    "plain": [1, -2.5, None, True, "text", b"\x00\xff", (1, (2,)), {3}, frozenset({4}), 2**70],
    "number": 1 + 2j,
    "bytearray": bytearray(b"\x00\xff"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_numpy_and_builtins(tmp_path, protocol):
    same(read(tmp_path, pickle.dumps(CONTENT, protocol)), CONTENT)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3])
def test_reads_numpy_one(tmp_path, protocol):
    data = pickle.dumps({"x": np.arange(4.0), "s": np.float32(3)}, protocol)
    old = old_numpy(data)
    assert b"numpy.core.multiarray" in old and b"_core" not in old
    same(read(tmp_path, old), {"x": np.arange(4.0), "s": np.float32(3)})


@given(
    hnp.arrays(
        st.one_of(hnp.integer_dtypes(), hnp.floating_dtypes(), hnp.boolean_dtypes()),
        hnp.array_shapes(min_dims=0, min_side=0),
    ),
    st.sampled_from(PROTOCOLS),
)
def test_reads_any_array(tmp_path_factory, array, protocol):
    path = tmp_path_factory.mktemp("pickle") / "file.pkl"
    path.write_bytes(pickle.dumps(array, protocol))
    same(load_pickle(path), array)


def test_reads_python_two_strings_as_latin1(tmp_path):
    """A protocol-2 file as Python 2 writes it: `str` for keys, names and the array's bytes."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    values = np.array([1.5, -2.25], dtype="<f8")
    dtype = (
        b"cnumpy\ndtype\n" + text(b"f8") + b"K\x00K\x01\x87R(K\x03" + text(b"<") + b"NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
        b"(K\x01K\x02\x85" + dtype + b"\x89" + text(values.tobytes()) + b"tb"
    )
    data = b"\x80\x02}(" + text(b"v_template") + array + text(b"n\xe4me") + text(b"x") + b"u."
    assert pickle.loads(data, encoding="latin1")["näme"] == "x"
    same(read(tmp_path, data), {"v_template": values, "näme": "x"})


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("layout", ["csc", "csr", "coo"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
def test_makes_sparse_matrices_dense(tmp_path, protocol, layout, kind):
    dense = np.zeros((4, 7))
    dense[[0, 2, 3, 3], [6, 1, 0, 5]] = [1.0, -2.0, 3.0, 0.5]
    stored = getattr(sparse, f"{layout}_{kind}")(dense)
    data = pickle.dumps({"J_regressor": stored, "again": stored}, protocol)
    result = read(tmp_path, data)
    same(result, {"J_regressor": dense, "again": dense})
    assert result["J_regressor"] is result["again"]


def test_reads_the_names_of_old_scipy(tmp_path):
    """Modules without an underscore, Python 2's way of making objects, `_shape` or `shape`."""
    dense = np.array([[0, 2.0, 0], [1, 0, 0]])
    data = pickle.dumps(sparse.csc_matrix(dense), 2)
    for old in (data, data.replace(b"\x06\x00\x00\x00_shape", b"\x05\x00\x00\x00shape")):
        old = old_numpy(old).replace(b"scipy.sparse._csc", b"scipy.sparse.csc")
        reconstructed = old.replace(
            b"cscipy.sparse.csc\ncsc_matrix\nq\x00)\x81",
            b"ccopy_reg\n_reconstructor\ncscipy.sparse.csc\ncsc_matrix\nq\x00"
            b"c__builtin__\nobject\nN\x87R",
        )
        assert reconstructed != old
        same(read(tmp_path, old), dense)
        same(read(tmp_path, reconstructed), dense)


def test_repeated_entries_of_a_sparse_matrix_add_up(tmp_path):
    stored = sparse.coo_matrix(([1.0, 2.0], ([1, 1], [0, 0])), shape=(2, 2))
    same(read(tmp_path, pickle.dumps(stored)), np.array([[0.0, 0.0], [3.0, 0.0]]))


@pytest.fixture
def chumpy(monkeypatch):
    """A chumpy that can be pickled but is gone when the file is read."""
    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch")}
    modules["chumpy.reordering"] = types.ModuleType("chumpy.reordering")
    for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
        cls = type(name, (), {"__module__": module, "__init__": _keep})
        setattr(modules[module], name, cls)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    def dump(value, protocol):
        data = pickle.dumps(value, protocol)
        for name in modules:
            monkeypatch.delitem(sys.modules, name)
        return data

    return modules["chumpy.ch"].Ch, modules["chumpy.reordering"].Select, dump


def _keep(self, **fields):
    self.__dict__.update(fields)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_chumpy_without_chumpy(tmp_path, chumpy, protocol):
    ch, select, dump = chumpy
    values = np.arange(24.0).reshape(4, 3, 2)
    whole = ch(x=values, _dirty_vars={"x"}, _itr=None, _status="new")
    # MANO's first shape directions: chosen from a flat array, in another shape.
    chosen = select(a=whole, idxs=np.array([0, 5, 23]), preferred_shape=(3, 1))
    data = dump({"shapedirs": whole, "few": chosen, "scalar": ch(x=2.0)}, protocol)
    assert "chumpy" not in sys.modules
    expected = {"shapedirs": values, "few": np.array([[0.0], [5.0], [23.0]])}
    same(read(tmp_path, data), {**expected, "scalar": np.array(2.0)})


def test_containers_that_hold_themselves(tmp_path):
    value = {"array": np.arange(3)}
    value["self"] = value
    value["list"] = [value]
    result = read(tmp_path, pickle.dumps(value))
    assert result["self"] is result and result["list"][0] is result
    same(read(tmp_path, pickle.dumps(OrderedDict(a=np.arange(2)))), {"a": np.arange(2)})


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch executed",), r"(posix|nt)\.system"),
        (eval, ("open('executed', 'w')",), r"(builtins|__builtin__)\.eval"),
        (getattr, ("", "join"), r"(builtins|__builtin__)\.getattr"),
        (np.load, ("executed",), r"numpy\.load"),
        (np.lib.npyio.NpzFile, ("executed",), r"numpy.*\.NpzFile"),
        (types.SimpleNamespace, (), r"types\.SimpleNamespace"),
        (io.FileIO, ("executed", "w"), r"_?io\.FileIO"),
        (pickle.loads, (b"N.",), r"_?c?[pP]ickle\.loads"),
    ],
)
def test_refuses_to_call(tmp_path, monkeypatch, protocol, function, arguments, name):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"v_template": np.zeros(3), "x": Calls(function, *arguments)}, protocol)
    with pytest.raises(InputError, match=rf"file\.pkl asks for {name}"):
        read(tmp_path, data)
    assert not (tmp_path / "executed").exists()


def test_refuses_by_hand(tmp_path):
    marker = tmp_path / "executed"
    for data, name in (
        (f"cos\nsystem\n(S'touch {marker}'\ntR.".encode(), r"os\.system"),
        (f"(S'touch {marker}'\nios\nsystem\n.".encode(), r"os\.system"),
        (b"c__builtin__\neval\n(S'1'\ntR.", r"__builtin__\.eval"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.", r"numpy\.dtype\.__init__"),
        (b"\x80\x02cscipy.sparse._lil\nlil_matrix\n)\x81.", r"scipy\.sparse\._lil\.lil_matrix"),
        (b"\x80\x02X\x01\x00\x00\x00xQ.", "an object outside the file"),
    ):
        with pytest.raises(InputError, match=f"asks for {name}"):
            read(tmp_path, data)
    assert not marker.exists()


@pytest.mark.parametrize(
    "data",
    [
        # The state of a class or of a function that the table gives.
        b"\x80\x02cnumpy\nndarray\n}X\x04\x00\x00\x00evilK\x01sb.",
        b"\x80\x02cnumpy\nndarray\nN}X\x0c\x00\x00\x00__setstate__K\x01s\x86b.",
        b"\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__K\x01s\x86b.",
        b"\x80\x02c_codecs\nencode\n.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x03\x00\x00\x00hex\x86R.",
        b"\x80\x02cnumpy\nndarray\n.",
        b"\x80\x02cchumpy.ch\nCh\n)\x81.",
        b"\x80\x02cchumpy.ch\nCh\n)\x81K\x01b.",
        b"\x80\x02ccopy_reg\n_reconstructor\nc__builtin__\nset\nc__builtin__\nobject\nN\x87R.",
        b"cnumpy.core.multiarray\n_reconstruct\n(c__builtin__\nset\n(I0\ntS'b'\ntR.",
    ],
)
def test_refuses_states_and_calls_that_no_array_has(tmp_path, data):
    with pytest.raises(InputError, match=r"expected a complete pickle of arrays in .*file.pkl"):
        read(tmp_path, data)
    same(read(tmp_path, pickle.dumps(CONTENT)), CONTENT)


@pytest.mark.parametrize(
    "state",
    [
        (1, (2,), np.dtype("f8"), False, b"\x00" * 8),
        (1, (1,), np.dtype("f8"), False, 8),
        (1, (10**12,), np.dtype("f8"), False, b""),
        (1, (-1,), np.dtype("f8"), False, b"\x00" * 8),
        (1, (1,), np.dtype([("a", "f8")]), False, b"\x00" * 8),
        (1, (1,), np.dtype("M8[s]"), False, b"\x00" * 8),
        (1, (3,), np.dtype("O"), False, [1, 2]),
        (1, (1,), "f8", False, b"\x00" * 8),
        "nothing",
    ],
)
def test_refuses_arrays_that_do_not_fit(tmp_path, state):
    inner = pickle.dumps(state, 2)[2:-1]
    made = b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    with pytest.raises(InputError, match="expected a complete pickle"):
        read(tmp_path, made + inner + b"b.")


def test_refuses_truncated_files(tmp_path):
    data = pickle.dumps(CONTENT | {"sparse": sparse.csc_matrix(np.eye(3))}, 2)
    for end in [*range(0, len(data) - 1, 7), len(data) - 1]:
        with pytest.raises(InputError, match="expected a complete pickle"):
            read(tmp_path, data[:end])


@given(st.binary(max_size=60))
def test_random_bytes_give_a_value_or_an_input_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("noise") / "file.pkl"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        load_pickle(path)


def test_refuses_endless_nesting_and_huge_lengths(tmp_path):
    for data in (
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x04\x8d" + b"\xff" * 8,
    ):
        with pytest.raises(InputError, match="expected a complete pickle"):
            read(tmp_path, data)
    with pytest.raises(InputError, match="expected a complete pickle"):
        read(tmp_path, b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.")


def _nested(opcode, depth=60):
    """A list or tuple of two that are the same, over and over."""
    return b"\x80\x02K\x01" + b"".join(b"q%c0h%ch%c" % (n, n, n) + opcode for n in range(depth))


@pytest.mark.parametrize(
    "data",
    [
        # A memo of 2^32 entries.
        b"\x80\x02]r\xff\xff\xff\xff.",
        # Tuples of 2^60 entries, as a value, as a key, in a set, in an ordered dict.
        _nested(b"\x86") + b".",
        b"\x80\x02}" + _nested(b"\x86")[2:] + b"K\x01s.",
        b"\x80\x02c__builtin__\nset\n(" + _nested(b"\x86")[2:] + b"l\x85R.",
        # A list of 2^60 entries.
        b"\x80\x02K\x01" + b"".join(b"q%c0(h%ch%cl" % (n, n, n) for n in range(60)) + b".",
    ],
    ids=["memo", "tuple", "key", "set", "list"],
)
def test_small_files_do_not_fill_the_memory_or_the_day(tmp_path, data):
    with pytest.raises(InputError) if data[2:4] != b"]r" else contextlib.nullcontext():
        read(tmp_path, data)


@pytest.mark.parametrize(
    "change",
    [{"_shape": (10**6, 10**6)}, {"indptr": np.array([0, 2**40])}, {"indptr": np.array([0, -1])}],
)
def test_sparse_matrices_that_would_fill_the_memory_are_refused(tmp_path, change):
    matrix = sparse.csc_matrix(np.eye(3))
    matrix.__dict__.update(change)
    with pytest.raises(InputError, match="a sparse matrix"):
        read(tmp_path, pickle.dumps(matrix, 2))


def test_lists_of_one_array_over_and_over_are_refused(tmp_path):
    array = np.zeros(10**6)
    with pytest.raises(InputError, match="most of them the same"):
        read(tmp_path, pickle.dumps([[array] * 100] * 2))
    assert len(read(tmp_path, pickle.dumps([array] * 3))) == 3


def test_reads_a_stream_from_where_it_stands():
    stored = io.BytesIO(b"header" + pickle.dumps({"a": 1}) + b"rest")
    stored.seek(6)
    assert load_pickle(stored) == {"a": 1}
    with pytest.raises(InputError, match="in archive: "):
        load_pickle(stored, name="archive")


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_pickle(tmp_path / "none.pkl")
