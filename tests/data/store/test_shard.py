"""One shard: a plain HDF5 file that is whole or absent, and a foreign file that is refused whatever it tries."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from permafrost.data.errors import MachineError
from permafrost.data.spec import plain
from permafrost.data.store import shard_layout
from permafrost.data.store.block import Block, write_shard
from permafrost.data.store.encoding import decode, memory_dtype, vector_bytes
from permafrost.data.store.errors import FORMAT, OtherVersionError, ShardError
from permafrost.data.store.identity import STORED_DTYPES
from permafrost.data.store.int8 import int8_vector
from permafrost.data.store.keys import text_keys
from permafrost.data.store.shard import Shard
from permafrost.extract.capture.rounding import encode
from tests.support import blocks
from tests.support.blocks import block_of

ROOT = Path(__file__).resolve().parents[3]
COLUMNS = {"last": (1,), "mean": (0, 2)}
TEXTS = ["a", "b", "c"]
IDENTITY = replace(blocks.IDENTITY, max_tokens=16)


def block(**others: Any) -> Block:
    return block_of(text_keys(TEXTS), COLUMNS, **others)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_shard(tmp_path, IDENTITY, {"host": "h", "layers": 99}, block())


def read_all(path: Path) -> dict[str, Any]:
    """Everything a shard holds."""
    shard = Shard(path)
    latents = {f"{view} {layer}": shard.layer(view, layer) for view in shard.columns for layer in shard.columns[view]}
    return latents | {"keys": shard.keys, "lengths": shard.lengths}


def problems(path: Path) -> list[str]:
    try:
        return Shard(path).problems()
    except ShardError as error:
        return [error.reason]


@pytest.mark.parametrize("dtype", STORED_DTYPES)
def test_a_shard_gives_back_what_was_written(tmp_path, dtype):
    written, identity = block(dtype=dtype), replace(IDENTITY, stored_dtype=dtype)
    shard = Shard(write_shard(tmp_path, identity, {"host": "h", "layers": 99}, written))
    assert (shard.identity, shard.provenance, shard.columns) == (identity, {"host": "h", "layers": 99}, COLUMNS)
    assert (shard.texts, shard.width("mean"), shard.dtype) == (3, 4, memory_dtype(dtype))
    np.testing.assert_array_equal(shard.keys, written.keys)
    np.testing.assert_array_equal(shard.lengths, written.lengths)
    for view, layers in COLUMNS.items():
        for index, layer in enumerate(layers):
            stored = written.latents[view][index]
            np.testing.assert_array_equal(shard.layer(view, layer), stored)
            assert shard.layer(view, layer).nbytes == 3 * vector_bytes(dtype, 4)
            assert shard.peaks[view][index] == pytest.approx(np.abs(decode(stored)).max(), rel=1e-5)
    assert shard.problems() == []


def by_hand(records: np.ndarray) -> np.ndarray:
    """The numbers of records of one dimension, as the module of the layout defines them."""
    scales, outliers = ((records[part].astype(np.uint32) << 16).view(np.float32) for part in ("scales", "outliers"))
    return np.where(records["values"] == -128, outliers, records["values"] * scales)


@pytest.mark.parametrize("dtype", STORED_DTYPES)
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=12), peak=st.floats(1, 60_000))
@settings(deadline=None, max_examples=50)
def test_plain_h5py_reads_every_value_that_was_written(tmp_path_factory, dtype, bits, peak):
    drawn = np.array(bits, np.uint32).view(np.float32)
    drawn = np.append(drawn[np.isfinite(drawn)], np.float32(peak))
    if dtype == "float16":
        drawn = np.clip(drawn, -60_000, 60_000)
    stored = encode(drawn.reshape(1, -1, 1), dtype)
    values = decode(stored)
    written = Block(
        keys=text_keys([str(text) for text in range(values.shape[1])]),
        lengths=np.ones(values.shape[1], np.int32),
        columns={"mean": (3,)},
        latents={"mean": stored},
    )
    path = write_shard(tmp_path_factory.mktemp("bits"), replace(IDENTITY, stored_dtype=dtype), {"layers": 99}, written)
    with h5py.File(path) as file:
        read = file["latents/mean"][:]
        np.testing.assert_array_equal(by_hand(read) if dtype == "int8" else read.astype(np.float32), values)
    assert decode(Shard(path).layer("mean", 3)).tobytes() == values.tobytes()
    assert Shard(path).peaks == {"mean": (pytest.approx(float(np.abs(values).max()), rel=1e-5),)}


def test_latents_that_are_not_in_the_dtype_of_the_store_are_not_written(tmp_path):
    for dtype, wrong in ((dtype, block(dtype="float32" if dtype != "float32" else "int8")) for dtype in STORED_DTYPES):
        with pytest.raises(ValueError, match=f"cannot be stored as {dtype}"):
            write_shard(tmp_path, replace(IDENTITY, stored_dtype=dtype), {"layers": 99}, wrong)


@pytest.fixture
def of_bfloat16(tmp_path: Path) -> Path:
    return write_shard(tmp_path, replace(IDENTITY, stored_dtype="bfloat16"), {"layers": 99}, block(dtype="bfloat16"))


def test_netcdf4_reads_bfloat16_as_numbers(of_bfloat16):
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(of_bfloat16) as file:
        for view, values in block(dtype="bfloat16").latents.items():
            np.testing.assert_array_equal(file["latents"][view][:], decode(values))


@pytest.mark.skipif(not shutil.which("h5dump"), reason="h5dump is not installed")
def test_h5dump_reads_bfloat16_as_numbers(of_bfloat16):
    command = ["h5dump", "--noindex", "--dataset", "/latents/last", of_bfloat16]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shown = said.split("DATA {")[1].split("}")[0].replace(",", " ").split()
    np.testing.assert_allclose(
        [float(number) for number in shown], decode(block(dtype="bfloat16").latents["last"]).reshape(-1), rtol=1e-4
    )


def test_a_shard_without_peaks_is_one_of_an_earlier_version(path):
    with h5py.File(path, "r+") as file:
        about = json.loads(file.attrs["about"])
        del about["peaks"]
        describe(file, json.dumps(about).encode())
    assert Shard(path).peaks == {}
    np.testing.assert_array_equal(Shard(path).layer("mean", 0), block().latents["mean"][0])


@pytest.mark.parametrize(
    "changes",
    [{"layers": None}, {"layers": "9"}, {"layers": True}, {"layers": -1}, {"layers": 10**12}, {"layers": 1},
     {"longest": 0}, {"longest": "long"}, {"backbone": ["minilm"]}, {"template": 1}],
    ids=repr,
)  # fmt: skip
def test_a_provenance_that_cannot_be_is_a_damaged_shard(path, changes):
    with h5py.File(path, "r+") as file:
        about = json.loads(file.attrs["about"])
        about["provenance"] = {
            key: value for key, value in (about["provenance"] | changes).items() if value is not None
        }
        describe(file, json.dumps(about).encode())
    with pytest.raises(ShardError, match="provenance"):
        Shard(path)


def test_a_shard_that_is_gone_is_told_without_a_repair(path):
    shard = Shard(path)
    path.unlink()
    for read in (lambda: Shard(path), lambda: shard.keys):
        with pytest.raises(ShardError, match=r"no longer there\. Run the same command again") as gone:
            read()
        assert "repair" not in str(gone.value)


def test_a_pipe_named_like_a_shard_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / f"{'0' * 32}.h5")
    with pytest.raises(ShardError, match="not a regular file"):
        Shard(tmp_path / f"{'0' * 32}.h5")


def test_plain_h5py_reads_the_layout_that_the_module_describes(path):
    written = block()
    with h5py.File(path) as file:
        about = json.loads(file.attrs["about"])
        assert set(about) == {"format", "identity", "provenance", "columns", "peaks"}
        assert about["format"] == FORMAT
        assert set(file) == {"keys", "lengths", "latents"}
        np.testing.assert_array_equal(file["keys"][:].view("S16")[:, 0], written.keys)
        for view in COLUMNS:
            dataset = file[f"latents/{view}"]
            np.testing.assert_array_equal(dataset[:], written.latents[view])
            sums = [xxhash.xxh3_64_intdigest(layer.tobytes()) for layer in written.latents[view]]
            assert dataset.attrs["xxh3"].tolist() == sums
        for dataset in (file["keys"], file["lengths"], *file["latents"].values()):
            assert dataset.chunks is None
            assert dataset.compression is None
            assert dataset.id.get_offset() is not None


def test_the_file_version_is_the_oldest_and_the_name_is_the_digest_of_the_bytes(path):
    raw = path.read_bytes()
    assert raw[:8] == b"\x89HDF\r\n\x1a\n"
    assert raw[8] == 0, "a superblock above 0 leaves flags behind when its writer is killed"
    assert path.name == f"{xxhash.xxh3_128_hexdigest(raw)}.h5"


def test_equal_latents_make_one_equal_file(path):
    before = path.read_bytes()
    assert write_shard(path.parent, IDENTITY, {"host": "h", "layers": 99}, block()) == path
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    assert write_shard(path.parent, IDENTITY, {"host": "h", "layers": 99}, block(seed=1)) != path


def test_a_file_cut_anywhere_is_found(path):
    raw = path.read_bytes()
    for length in [0, 1, 7, 8, 95, *range(96, len(raw), 97), len(raw) - 1]:
        path.write_bytes(raw[:length])
        assert problems(path), length


def test_a_damaged_shard_is_the_machines_fault_and_says_how_to_repair(path):
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ShardError, match=f"'permafrost cache repair {path.parent}'") as error:
        Shard(path)
    assert isinstance(error.value, MachineError)


@settings(deadline=None)  # every example syncs a file
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_always_found_and_never_read_as_a_latent(tmp_path_factory, position, bit):
    path = write_shard(tmp_path_factory.mktemp("flip"), IDENTITY, {"host": "h", "layers": 99}, block())
    before = {name: np.array(values) for name, values in read_all(path).items()}
    raw = bytearray(path.read_bytes())
    raw[int(position * len(raw))] ^= 1 << bit
    path.write_bytes(raw)
    assert problems(path)
    try:
        after = read_all(path)
    except ShardError:
        return
    for name in before.keys() & after.keys():
        np.testing.assert_array_equal(after[name], before[name])


def test_a_shard_that_holds_a_value_that_is_not_finite_is_found(tmp_path):
    broken = block()
    broken.latents["mean"][1, 0, 0] = np.nan
    found = Shard(write_shard(tmp_path, IDENTITY, {"layers": 99}, broken)).problems()
    assert found == ["latents/mean[1] holds values that are not finite"]
    of_records = block(dtype="int8")
    of_records.latents["mean"]["scales"][1, 0] = 0x7F80  # infinity
    found = Shard(write_shard(tmp_path, replace(IDENTITY, stored_dtype="int8"), {"layers": 99}, of_records)).problems()
    assert found == ["latents/mean[1] holds values that are not finite"]


def test_reading_one_layer_reads_no_other(path):
    raw = bytearray(path.read_bytes())
    raw[raw.index(block().latents["mean"][1].tobytes())] ^= 1
    path.write_bytes(raw)
    shard = Shard(path)
    np.testing.assert_array_equal(shard.layer("mean", 0), block().latents["mean"][0])
    with pytest.raises(ShardError, match=r"latents/mean\[1\] does not match its checksum"):
        shard.layer("mean", 2)


def describe(file: h5py.File, text: bytes) -> None:
    """Give a shard another description, with the checksum that fits it."""
    for name in ("about", "about_xxh3"):
        del file.attrs[name]
    file.attrs["about"] = np.bytes_(text)
    file.attrs["about_xxh3"] = np.uint64(xxhash.xxh3_64_intdigest(text))


def about_with(**changes: Any) -> Callable[[h5py.File], None]:
    return lambda file: describe(file, json.dumps(json.loads(file.attrs["about"]) | changes).encode())


def instead(name: str, **settings: Any) -> Callable[[h5py.File], None]:
    """Replace a dataset by an equal one that is stored in another way."""

    def change(file: h5py.File) -> None:
        values, sums = file[name][:], file[name].attrs["xxh3"]
        del file[name]
        file.create_dataset(name, **({"data": values} | settings)).attrs["xxh3"] = sums

    return change


def attribute(name: str, key: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name].attrs[key]
        if value is not None:
            file[name].attrs[key] = value

    return change


def linked(link: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["latents/mean"]
        file["latents/mean"] = link(file) if callable(link) else link

    return change


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 3, 4), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (2, 3, 4))
    del file["latents/mean"]
    file.create_virtual_dataset("latents/mean", layout)


def float_type(size: int, bias: int) -> h5py.Datatype:
    """A float type that h5py reads as float32, as it does bfloat16."""
    made = shard_layout.BFLOAT16.copy()
    made.set_size(size)
    made.set_ebias(bias)
    return h5py.Datatype(made)


def of_int8(dtype: np.dtype[Any], shape: tuple[int, ...] = (2, 3)) -> Callable[[h5py.File], None]:
    """Records in the place of latents, in a shard that declares int8."""

    def change(file: h5py.File) -> None:
        about_with(identity=plain(IDENTITY) | {"stored_dtype": "int8"})(file)
        instead("latents/mean", data=np.zeros(shape, dtype))(file)
        instead("latents/last", data=np.zeros((1, 3), int8_vector(4)))(file)

    return change


PLAIN, LAYOUT, SHAPE = "not stored in one plain run of bytes", "other things than latents", "declared are 2 layers"
HOSTILE: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "soft link": (linked(h5py.SoftLink("/latents/last")), "'mean' is a link that leads elsewhere"),
    "external link": (linked(h5py.ExternalLink("/etc/passwd", "/x")), "'mean' is a link that leads elsewhere"),
    "link in a circle": (linked(lambda file: file["/"]), "a dataset was expected"),
    "external storage": (instead("lengths", external=[("/etc/passwd", 0, 12)]), PLAIN),
    "virtual dataset": (virtual, PLAIN),
    "gzip": (instead("latents/mean", chunks=(1, 3, 4), compression="gzip"), PLAIN),
    "chunks": (instead("latents/mean", chunks=(1, 3, 4)), PLAIN),
    "opaque bytes": (instead("lengths", data=np.zeros(3, "V4")), "dtype |V4"),
    "objects": (instead("keys", data=["a", "b", "c"]), "dtype object"),
    "a scalar": (instead("keys", data=np.uint8(1)), ""),
    "double precision": (instead("latents/mean", dtype="<f8"), "dtype float64"),
    "half precision": (instead("latents/mean", dtype="<f2"), "not the type float32"),
    "bfloat16 where float32 is declared": (instead("latents/mean", dtype=float_type(2, 127)), "not the type float32"),
    "a float that is none of ours": (instead("latents/mean", dtype=float_type(4, 100)), "not the type float32"),
    "the other byte order": (instead("latents/mean", dtype=">f4"), "dtype >f4"),
    "no width": (instead("latents/mean", data=np.zeros((2, 3, 0), "<f4")), "declares 0 bytes"),
    "one text less": (instead("latents/mean", data=np.zeros((2, 2, 4), "<f4")), SHAPE),
    "one axis less": (instead("latents/mean", data=np.zeros((2, 3), "<f4")), SHAPE),
    "one length more": (instead("lengths", data=np.zeros(4, "<i4")), "do not fit each other"),
    "never written": (instead("latents/mean", data=None, shape=(2, 3, 4), dtype="<f4"), "does not hold"),
    "extra dataset": (lambda file: file.create_dataset("more", data=[1]), LAYOUT),
    "extra view": (lambda file: file.create_dataset("latents/sum", data=[1]), "not those it declares"),
    "many members": (lambda file: [file.create_group(f"g{number}") for number in range(200)], "a group was expected"),
    "no checksums": (attribute("keys", "xxh3", None), "xxh3"),
    "too few checksums": (attribute("latents/mean", "xxh3", np.zeros(1, "u8")), "lacks checksums"),
    "empty checksums": (attribute("keys", "xxh3", np.zeros(0, "u8")), "lack their checksum"),
    "oversized checksums": (attribute("latents/mean", "xxh3", np.zeros(7_000, "u8")), "too many checksums"),
    "infinite checksum": (attribute("keys", "xxh3", np.float64("inf")), "checksums of dtype float64"),
    "no description": (attribute("/", "about", None), "about"),
    "a number for a description": (attribute("/", "about", np.int64(10**13)), "not text"),
    "another description": (attribute("/", "about", np.bytes_(b"{}")), "does not match its checksum"),
    "infinite checksum of the description": (attribute("/", "about_xxh3", np.float64("inf")), "infinity"),
    "oversized description": (lambda file: describe(file, b" " * 61_000), "description is too large"),
    "description that is no JSON": (lambda file: describe(file, b"{"), "line 1"),
    "deep description": (lambda file: describe(file, b"[" * 50_000), "recursion"),
    "description that is a list": (lambda file: describe(file, b"[1]"), "list"),
    "a format that is no number": (about_with(format="2"), "its format is no number"),
    "no identity": (about_with(identity=None), "not an identity"),
    "an identity of other fields": (about_with(identity={"weights": "w"}), "not an identity"),
    "a dtype that nothing is computed in": (
        about_with(identity=plain(IDENTITY) | {"compute_dtype": "int4"}),
        "compute_dtype is 'int4'",
    ),
    "a dtype that nothing is stored in": (
        about_with(identity=plain(IDENTITY) | {"stored_dtype": "auto"}),
        "stored_dtype is 'auto'",
    ),
    "bfloat16 that is declared and not there": (
        about_with(identity=plain(IDENTITY) | {"stored_dtype": "bfloat16"}),
        "not the type bfloat16",
    ),
    "int8 that is declared and not there": (
        about_with(identity=plain(IDENTITY) | {"stored_dtype": "int8"}),
        "not the type int8",
    ),
    "records of other parts": (
        of_int8(np.dtype([("values", "i1", (4,)), ("scales", "<u2", (1,))])),
        "not the type int8",
    ),
    "records of too many scales": (
        of_int8(np.dtype([("values", "i1", (4,)), ("scales", "<u2", (2,)), ("outliers", "<u2", (1,))])),
        "not the type int8",
    ),
    "records of an axis too many": (
        of_int8(int8_vector(4), (2, 3, 4)),
        SHAPE,
    ),
    "peaks of other columns": (about_with(peaks={"mean": [1.0], "last": [1.0]}), "not those of its columns"),
    "peaks that are no numbers": (about_with(peaks={"mean": [1.0, "x"], "last": [1.0]}), "could not convert"),
    "unknown view": (about_with(columns={"mean": [0, 2], "tokens": [1]}), LAYOUT),
    "a layer twice": (about_with(columns={"mean": [0, 0], "last": [1]}), SHAPE),
    "infinite layer": (about_with(columns={"mean": [0, float("inf")], "last": [1]}), "infinity"),
    "an absent view": (about_with(columns={"mean": [0, 2], "last": [1], "sum": [1]}), "not those it declares"),
    "columns that are no table": (about_with(columns=[0, 2]), "list"),
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_a_hostile_file_is_refused_on_opening(path, trick):
    with h5py.File(path, "r+") as file:
        change, reason = HOSTILE[trick]
        change(file)
    with pytest.raises(ShardError) as error:
        Shard(path)
    assert error.value.reason.startswith("not a whole shard (")
    assert reason in error.value.reason


def test_a_shard_of_another_version_says_so_and_what_to_do(path):
    with h5py.File(path, "r+") as file:
        about_with(format=FORMAT - 1)(file)
    with pytest.raises(OtherVersionError) as error:
        Shard(path)
    assert error.value.exit_code == 2
    assert str(error.value) == (
        f"{path.parent}: written by another version (format {FORMAT - 1}, this version reads {FORMAT}). 'run' and "
        f"'extract' make its latents anew; 'permafrost cache prune --whole {path.parent}' removes it."
    )


@pytest.mark.parametrize("shape", [(2**40, 3, 4), (2, 2**60, 4), (2, 3, 2**62), (2, 2**62, 4)])
def test_a_size_that_the_file_cannot_hold_is_refused_before_allocation(path, shape):
    raw = path.read_bytes()
    assert raw.count(struct.pack("<3Q", 2, 3, 4))
    path.write_bytes(raw.replace(struct.pack("<3Q", 2, 3, 4), struct.pack("<3Q", *shape)))
    with pytest.raises(ShardError, match="not a whole shard"):
        Shard(path)


def test_a_file_that_is_no_hdf5_or_not_there_is_no_shard(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "folder.h5").mkdir()
    for name in ("text.h5", "folder.h5", "none.h5"):
        with pytest.raises(ShardError, match=name):
            Shard(tmp_path / name)


def child(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in another process that can write to ``folder``."""
    begin = f"import os, resource, signal, sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
    begin += f"from pathlib import Path; from tests.data.store.test_shard import *; folder = Path({str(folder)!r})\n"
    return subprocess.run([sys.executable, "-c", begin + code], check=False, capture_output=True, text=True, timeout=60)


def test_a_full_disk_is_one_clear_line_and_leaves_nothing_behind(path):
    done = child(
        path.parent,
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try: write_shard(folder, IDENTITY, dict(layers=99), block(seed=1))\n"
        "except MachineError as error: print(error)",
    )
    assert done.returncode == 0, done.stderr
    assert "could not be written (File too large). What was committed is safe" in done.stdout
    assert list(path.parent.iterdir()) == [path]
    assert Shard(path).problems() == []


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="could not be written"):
        write_shard(tmp_path / "file" / "store", IDENTITY, {"layers": 99}, block())


def test_a_writer_killed_before_the_rename_leaves_no_shard(tmp_path):
    kill = "os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
    code = f"{kill}write_shard(folder, IDENTITY, dict(layers=9), block())"
    assert child(tmp_path, code).returncode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.endswith(".tmp")
    assert leftover.stat().st_size
    write_shard(tmp_path, IDENTITY, {"layers": 99}, block())
    assert len(list(tmp_path.glob("*.h5"))) == 1
