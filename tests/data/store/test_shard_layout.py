"""The shard format to the byte: every region is where it says, and every limit is exactly where it is said to be."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash

from permafrost.data.plan.plan import TOKENS
from permafrost.data.store import shard_layout
from permafrost.data.store.block import Block, write_shard
from permafrost.data.store.errors import FORMAT, OtherVersionError
from permafrost.data.store.identity import STORED_DTYPES
from permafrost.data.store.int8 import int8_vector
from permafrost.data.store.shard_layout import (
    BFLOAT16,
    NAMES,
    VALIDATORS,
    Region,
    checksum,
    dataset_name,
    read_about,
    read_peaks,
    read_provenance,
    read_regions,
    stored_type,
)
from tests.support.blocks import IDENTITY, Columns, ragged_block

TEXTS = ["a", "b", "c"]  # 7, 1 and 2 tokens
ALL: Columns = {"mean": (0, 2), "last": (5,), "tokens": (1, 3)}
COLUMNS: list[Columns] = [ALL, {"mean": (0, 2)}, {"tokens": (4,)}, {"weighted_mean": (0,), "tokens": (4,)}]
WIDTH = 66  # in int8, two groups


def written(folder: Path, columns: Columns, dtype: str = "float32") -> tuple[Block, bytes]:
    block = ragged_block(TEXTS, columns, dtype, width=WIDTH)
    path = write_shard(folder, replace(IDENTITY, stored_dtype=dtype), {"layers": 9}, block)
    return block, path.read_bytes()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A shard of all kinds of views in float32."""
    return written(tmp_path_factory.mktemp("shard"), ALL)[1]


def opened(image: bytes, change: Callable[[h5py.File], Any] | None = None) -> h5py.File:
    """A file in memory, changed and written out before it is opened for reading."""
    content = io.BytesIO(image)
    if change:
        with h5py.File(content, "r+") as file:
            change(file)
    return h5py.File(content, "r")


def regions(image: bytes, change: Any = None, columns: Columns = ALL, dtype: str = "float32", size: Any = None) -> Any:
    with opened(image, change) as file:
        return dict(read_regions(file, columns, dtype, 1 << 40 if size is None else size))


def arrays(block: Block) -> dict[str, np.ndarray]:
    found = {"keys": block.keys.view(np.uint8).reshape(-1, 16), "lengths": block.lengths}
    found |= {f"latents/{view}": values for view, values in block.latents.items()}
    if block.tokens:
        found |= {f"tokens/{name}": getattr(block.tokens, name) for name in ("states", "offsets", "ids", "spans")}
    return found


@pytest.mark.parametrize("columns", COLUMNS, ids=repr)
@pytest.mark.parametrize("dtype", STORED_DTYPES)
def test_every_region_holds_the_bytes_that_were_written_and_their_checksums(dtype, columns, tmp_path):
    block, image = written(tmp_path, columns, dtype)
    found, expected = regions(image, None, columns, dtype, len(image)), arrays(block)
    assert set(found) == set(expected)
    for name, values in expected.items():
        region, is_states = found[name], name.startswith("latents/") or name == "tokens/states"
        bytes_ = image[region.offset : region.offset + values.nbytes]
        assert bytes_ == values.tobytes(), name
        assert (region.dtype, region.shape, region.by_layer) == (values.dtype, values.shape, is_states)
        slices = list(values) if is_states else [values]
        assert region.checksums == tuple(xxhash.xxh3_64_intdigest(part.tobytes()) for part in slices)
        if is_states:
            assert region.width == WIDTH
    last = max(region.offset + expected[name].nbytes for name, region in found.items())
    assert regions(image, None, columns, dtype, last).keys() == found.keys()
    with pytest.raises(ValueError, match="which the file does not hold"):
        regions(image, None, columns, dtype, last - 1)


def test_the_type_bfloat16_is_a_float32_without_its_lower_half():
    assert BFLOAT16.get_fields() == (15, 7, 8, 0, 7)
    assert (BFLOAT16.get_size(), BFLOAT16.get_precision(), BFLOAT16.get_ebias(), BFLOAT16.get_offset()) == (
        2,
        16,
        127,
        0,
    )
    bits = np.arange(1 << 16, dtype=np.uint16)
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset("x", bits.shape, h5py.Datatype(BFLOAT16))
        dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, bits, BFLOAT16)
        numbers = (bits.astype(np.uint32) << 16).view(np.float32)
        finite = np.isfinite(numbers)
        np.testing.assert_array_equal(dataset[:][finite], numbers[finite])
        assert np.isinf(dataset[:][np.isinf(numbers)]).all()


@pytest.mark.parametrize("width", [1, 63, 64, 65, 200])
def test_types_on_disk_have_the_bytes_of_those_in_memory(width):
    vector = int8_vector(width)
    assert stored_type("int8", vector) == h5py.h5t.py_create(vector)
    for name, dtype in (("float16", "<f2"), ("float32", "<f4"), ("uint8", "u1"), ("int32", "<i4"), ("int64", "<i8")):
        assert stored_type(name, vector) == h5py.h5t.py_create(np.dtype(dtype))
    assert stored_type("bfloat16", vector) == BFLOAT16


def test_names_widths_and_checksums():
    assert (dataset_name(TOKENS), dataset_name("mean")) == ("tokens/states", "latents/mean")
    values = np.arange(24, dtype=np.int32).reshape(4, 6)[:, ::2]
    assert checksum(values) == xxhash.xxh3_64_intdigest(values.tobytes())
    of_floats = Region(offset=0, dtype=np.dtype("<f4"), shape=(2, 3, 4), checksums=(1, 2), by_layer=True)
    of_records = replace(of_floats, dtype=int8_vector(70), shape=(2, 3))
    assert (of_floats.width, of_records.width) == (4, 70)
    with pytest.raises(AttributeError):
        of_floats.offset = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Region(0, np.dtype("<f4"), (2, 3, 4), (1, 2), True)  # type: ignore[misc]


def described(file: h5py.File, text: bytes) -> None:
    for name in ("about", "about_xxh3"):
        del file.attrs[name]
    file.attrs["about"] = np.bytes_(text)
    file.attrs["about_xxh3"] = np.uint64(xxhash.xxh3_64_intdigest(text))


def about_of(image: bytes, text: Callable[[bytes], bytes]) -> dict[str, Any]:
    with opened(image, lambda file: described(file, text(file.attrs["about"]))) as file:
        return read_about(file)


def test_a_description_of_60_000_bytes_is_read_and_one_of_a_byte_more_is_not(image):
    whole = about_of(image, lambda text: text)
    assert set(whole) == {"format", "identity", "provenance", "columns", "peaks"}
    assert about_of(image, lambda text: text.ljust(60_000)) == whole
    with pytest.raises(ValueError, match="its description is too large"):
        about_of(image, lambda text: text.ljust(60_001))


@pytest.mark.parametrize("wrote", [FORMAT - 1, FORMAT + 1])
def test_formats_before_and_after_this_one_are_of_other_versions(image, wrote):
    def text(before: bytes) -> bytes:
        return json.dumps(json.loads(before) | {"format": wrote}).encode()

    with pytest.raises(OtherVersionError, match=f"format {wrote}, this version reads {FORMAT}"):
        about_of(image, text)


@pytest.mark.parametrize("wrote", [True, float(FORMAT), str(FORMAT), None])
def test_a_format_that_is_no_whole_number_is_refused(image, wrote):
    with pytest.raises(ValueError, match="its format is no number"):
        about_of(image, lambda text: json.dumps(json.loads(text) | {"format": wrote}).encode())


def test_a_description_is_bytes_that_match_their_checksum(image):
    def as_number(file: h5py.File) -> None:
        del file.attrs["about"]
        file.attrs["about"] = np.int64(3)

    def other_sum(file: h5py.File) -> None:
        del file.attrs["about_xxh3"]
        file.attrs["about_xxh3"] = np.uint64(0)

    for change, message in ((as_number, "is not text"), (other_sum, "does not match its checksum")):
        with opened(image, change) as file, pytest.raises(ValueError, match=message):
            read_about(file)


LAYERS, LONGEST = "does not say how many layers", "does not say how many tokens"


@pytest.mark.parametrize(
    ("provenance", "columns", "problem"),
    [
        ({"layers": 3}, {"mean": (0, 3), "last": (1,)}, None),
        ({"layers": 2}, {"mean": (0, 3), "last": (1,)}, LAYERS),
        ({"layers": 10_000}, {"mean": (0,)}, None),
        ({"layers": 10_001}, {"mean": (0,)}, LAYERS),
        ({"layers": 0}, {}, None),
        ({"layers": -1}, {}, LAYERS),
        ({"layers": True}, {"mean": (0,)}, LAYERS),
        ({"layers": 3.0}, {"mean": (0,)}, LAYERS),
        ({}, {"mean": (0,)}, LAYERS),
        ({"layers": 3, "longest": 1}, {"mean": (0,)}, None),
        ({"layers": 3, "longest": 0}, {"mean": (0,)}, LONGEST),
        ({"layers": 3, "longest": 2.0}, {"mean": (0,)}, LONGEST),
        ({"layers": 3, "longest": True}, {"mean": (0,)}, LONGEST),
        ({"layers": 3, "longest": None}, {"mean": (0,)}, LONGEST),
        *(({"layers": 3, name: "x"}, {"mean": (0,)}, None) for name in NAMES),
        *(({"layers": 3, name: 1}, {"mean": (0,)}, f"'{name}' in its provenance is no text") for name in NAMES),
        ({"layers": 3, "other": 1}, {"mean": (0,)}, None),
    ],
    ids=str,
)
def test_a_provenance_is_returned_unless_it_says_what_cannot_be(provenance, columns, problem):
    if problem is None:
        assert read_provenance({"provenance": provenance}, columns) == provenance
    else:
        with pytest.raises(ValueError, match=problem):
            read_provenance({"provenance": provenance}, columns)


def test_peaks_are_those_of_the_columns_or_none():
    columns = {"mean": (0, 2), "last": (1,)}
    assert read_peaks({}, columns) == read_peaks({"peaks": {}}, columns) == {}
    peaks = {"mean": [1, 2.5], "last": [3.0]}
    assert read_peaks({"peaks": peaks}, columns) == {"mean": (1.0, 2.5), "last": (3.0,)}
    for wrong in ({"mean": [1, 2]}, peaks | {"sum": [1]}, peaks | {"mean": [1]}, peaks | {"mean": [1, 2, 3]}):
        with pytest.raises(ValueError, match="its peaks are not those of its columns"):
            read_peaks({"peaks": wrong}, columns)


def groups(count: int) -> Callable[[h5py.File], None]:
    """Groups beside the four members that there are, so that there are ``count``."""
    return lambda file: [file.create_group(f"g{number}") for number in range(count - 4)] and None


def put(name: str, data: Any, sums: Any = None, **settings: Any) -> Callable[[h5py.File], None]:
    """Put a dataset in the place of another, with valid checksums or others."""

    def change(file: h5py.File) -> None:
        by_layer = name.startswith("latents/") or name == "tokens/states"
        del file[name]
        dataset = file.create_dataset(name, data=data, **settings)
        dataset.attrs["xxh3"] = np.zeros(len(data) if by_layer else 1, np.uint64) if sums is None else sums

    return change


def removed(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def u64(count: int) -> np.ndarray:
    return np.zeros(count, np.uint64)


F4, I4 = np.float32, np.int32
LATENTS = np.zeros((2, 3, WIDTH), F4)
KEYS = np.zeros((3, 16), np.uint8)
PAIR, FITS, THINGS = "keys and lengths do not fit each other", "offsets, ids and spans do not fit", "other things than"
CHANGES: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "a hundred members": (groups(100), THINGS),
    "more than a hundred": (groups(101), "a group was expected"),
    "a dataset for a group": (
        lambda file: (removed("latents")(file), file.create_dataset("latents", data=[1])),
        "group",
    ),
    "a group for a dataset": (
        lambda file: (removed("keys")(file), file.create_group("keys")),
        "a dataset was expected",
    ),
    "no keys": (removed("keys"), THINGS),
    "no latents": (removed("latents"), THINGS),
    "no view": (removed("latents/mean"), "its views are not those it declares"),
    "keys of 15 bytes": (put("keys", KEYS[:, :15]), PAIR),
    "keys of an axis less": (put("keys", KEYS[:, 0]), PAIR),
    "keys of an axis more": (put("keys", KEYS[..., None]), PAIR),
    "a key less": (put("keys", KEYS[:2]), PAIR),
    "a length less": (put("lengths", np.ones(2, I4)), PAIR),
    "lengths of two axes": (put("lengths", np.ones((3, 1), I4)), PAIR),
    "keys of another type": (put("keys", KEYS.astype(np.int8)), r"keys has dtype int8 and not the type uint8"),
    "a part of tokens less": (removed("tokens/ids"), "what belongs to tokens"),
    "a part of tokens more": (lambda file: file.create_dataset("tokens/more", data=[1]), "what belongs to tokens"),
    "an offset less": (put("tokens/offsets", np.arange(3)), FITS),
    "an offset more": (put("tokens/offsets", np.arange(5)), FITS),
    "ids of two axes": (put("tokens/ids", np.ones((10, 1), I4)), FITS),
    "a span less": (put("tokens/spans", np.ones((9, 2), I4)), FITS),
    "spans of three": (put("tokens/spans", np.ones((10, 3), I4)), FITS),
    "states of a token less": (put("tokens/states", np.ones((2, 9, WIDTH), F4)), "has shape"),
    "a text less": (put("latents/mean", LATENTS[:, :2]), "has shape"),
    "a layer less": (put("latents/mean", LATENTS[:1]), "declared are 2 layers"),
    "two axes": (put("latents/mean", LATENTS[..., 0]), "has shape"),
    "four axes": (put("latents/mean", LATENTS[..., None]), "has shape"),
    "chunks": (put("latents/mean", LATENTS, chunks=(1, 3, WIDTH)), "not stored in one plain run of bytes"),
    "no checksum": (put("keys", KEYS, u64(0)), "lack their checksum"),
    "two checksums for one": (put("keys", KEYS, u64(2)), "lack their checksum"),
    "three checksums for one": (put("keys", KEYS, u64(3)), "lack their checksum"),
    "checksums beyond a number a row": (put("keys", KEYS, u64(4)), "keys has too many checksums"),
    "one checksum for two layers": (put("latents/mean", LATENTS, u64(1)), "lacks checksums"),
    "three checksums for two layers": (put("latents/mean", LATENTS, u64(3)), "too many checksums"),
    "signed checksums": (put("latents/mean", LATENTS, np.zeros(2, np.int64)), "checksums of dtype int64"),
    "checksums of 32 bits": (put("keys", KEYS, np.zeros(1, np.uint32)), "checksums of dtype uint32"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_layout_that_is_not_exactly_the_one_written_is_refused(image, change):
    edit, message = CHANGES[change]
    with pytest.raises(ValueError, match=message):
        regions(image, edit)


def test_equal_parts_in_the_place_of_others_are_accepted(image):
    for edit in (put("keys", KEYS), put("latents/mean", LATENTS), put("tokens/offsets", np.arange(4))):
        assert regions(image, edit).keys() == regions(image).keys()


def test_columns_are_those_of_the_groups_and_of_distinct_layers(image):
    named_anew = {view.encode().decode(): layers for view, layers in ALL.items()}  # equal names, not the same objects
    assert regions(image, None, named_anew).keys() == regions(image).keys()
    for columns, message in (
        ({"mean": (0, 2), "last": (5,)}, THINGS),
        ({"tokens": (1, 3)}, THINGS),
        (ALL | {"sum": (0,)}, "its views are not those it declares"),
        (ALL | {"mean": (1, 1)}, "declared are 2 layers"),
        (ALL | {"mean": (1,)}, "declared are 1 layers"),
        (ALL | {"../mean": (1,)}, THINGS),
    ):
        with pytest.raises(ValueError, match=message):
            regions(image, None, columns)


@pytest.mark.parametrize("link", [h5py.SoftLink("/keys"), h5py.ExternalLink("x.h5", "/keys")], ids=["soft", "external"])
@pytest.mark.parametrize("name", ["keys", "latents/mean", "tokens/ids", "tokens"])
def test_a_link_in_the_place_of_a_part_is_refused(image, name, link):
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    with pytest.raises(ValueError, match=re.escape(f"'{name.rpartition('/')[2]}' is a link that leads elsewhere")):
        regions(image, change)


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype([("values", "i1", (WIDTH,)), ("scales", "<u2", (2,))]),
        np.dtype([("values", "i1")]),
        np.dtype([("values", "u1", (WIDTH,)), ("scales", "<u2", (2,)), ("outliers", "<u2", (2,))]),
        np.dtype([("values", "i1", (WIDTH,)), ("scales", "<u2", (1,)), ("outliers", "<u2", (1,))]),
        np.dtype("<f4"),
        np.dtype("V8"),
        h5py.enum_dtype({"a": 0}),
    ],
    ids=str,
)
def test_records_that_are_not_those_of_int8_are_refused(dtype, tmp_path):
    columns: Columns = {"mean": (0, 2)}
    _, image = written(tmp_path, columns, "int8")
    with pytest.raises(ValueError, match="not the type int8"):
        regions(image, put("latents/mean", np.zeros((2, 3), dtype)), columns, "int8")
    for shape in ((2, 3, 1), (2,)):
        with pytest.raises(ValueError, match="has shape"):
            regions(image, put("latents/mean", np.zeros(shape, int8_vector(WIDTH))), columns, "int8")


@pytest.mark.parametrize(
    ("name", "values", "tokens", "holds"),
    [
        ("offsets", [0, 2, 5], 5, True),
        ("offsets", [0, 5], 5, True),
        ("offsets", [1, 2, 5], 5, False),
        ("offsets", [-1, 2, 5], 5, False),
        ("offsets", [0, 2, 4], 5, False),
        ("offsets", [0, 2, 6], 5, False),
        ("offsets", [0, 2, 2, 5], 5, False),
        ("offsets", [0, 3, 2, 5], 5, False),
        ("ids", [0, 3], 2, True),
        ("ids", [0, -1], 2, False),
        ("spans", [[0, 1], [-1, -1], [3, 7]], 3, True),
        ("spans", [[0, 0]], 1, False),
        ("spans", [[2, 1]], 1, False),
        ("spans", [[-1, 1]], 1, False),
        ("spans", [[-1, 0]], 1, False),
        ("spans", [[-1, -2]], 1, False),
        ("spans", [[-2, 1]], 1, False),
        ("spans", [[0, -1]], 1, False),
        ("spans", [[0, 1], [1, 1]], 2, False),
    ],
)
def test_values_that_index_others_are_checked(name, values, tokens, holds):
    assert VALIDATORS[f"tokens/{name}"](np.array(values), tokens) is holds


def test_the_numbers_of_the_format_are_those_of_shards_that_exist():
    assert (FORMAT, shard_layout.KEY_BYTES, shard_layout.SUFFIX) == (3, 16, ".h5")
