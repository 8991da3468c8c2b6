"""Digests that are stored keep their values, and what counts for them is what they say."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.data.digests import (
    LARGEST_RECORD,
    DamageError,
    digest_of,
    digest_of_parts,
    digest_of_stream,
    file_digest,
    read_record_bytes,
)

PARTS = st.lists(st.binary(max_size=9), max_size=5)


@given(parts=PARTS)
def test_a_digest_of_parts_is_the_sha256_of_each_after_its_length(parts):
    lengths = (len(part).to_bytes(8, "little") for part in parts)
    expected = hashlib.sha256(b"".join(length + part for length, part in zip(lengths, parts, strict=True)))
    assert digest_of_parts(parts) == expected.hexdigest()


@given(parts=PARTS)
def test_a_digest_of_a_stream_is_that_of_its_bytes(parts):
    assert digest_of_stream(parts) == digest_of(b"".join(parts)) == hashlib.sha256(b"".join(parts)).hexdigest()


def test_the_division_into_parts_counts():
    assert digest_of_parts([b"ab", b""]) != digest_of_parts([b"a", b"b"])


def test_an_open_file_is_digested_from_its_position(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert file_digest(path) == digest_of(b"0123456789")
    with open(path, "rb", buffering=0) as file:
        file.seek(4)
        assert file_digest(file) == digest_of(b"456789")


def test_a_record_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(b"{}")
    assert read_record_bytes(path, "copy it again") == b"{}"
    with open(path, "wb") as file:
        file.truncate(LARGEST_RECORD + 1)
    with pytest.raises(DamageError, match=r"record.json has more than 64 MiB, .*: copy it again\.$"):
        read_record_bytes(path, "copy it again")
