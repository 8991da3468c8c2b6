"""A store on a real S3 server: a million rows are written, listed and read back; what goes wrong is one line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from permafrost.data.errors import MachineError
from permafrost.data.remote.mirror import local_cache
from permafrost.data.spec import SpecError
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from tests.support.blocks import IDENTITY, block_of
from tests.support.servers.s3 import ENVIRONMENT, s3_server

pytestmark = pytest.mark.slow

ROWS, SHARD = 1_000_000, 100_000
MEAN = {"mean": (0,)}


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a server that has the bucket ``latents``."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "here"))
    with s3_server(tmp_path) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        client = boto3.client("s3")
        client.create_bucket(Bucket="latents")
        yield client


def store() -> LatentStore:
    return LatentStore.at(local_cache("s3://latents/of/corpus"), "org/model", IDENTITY)


def keys_of(rows: range) -> np.ndarray:
    return text_keys([f"text {row}" for row in rows])


def test_a_million_rows_are_written_listed_read_back_and_a_damaged_object_is_refused(bucket, tmp_path, monkeypatch):
    here, rng = store(), np.random.default_rng(0)
    for start in range(0, ROWS, SHARD):
        here.append(block_of(keys_of(range(start, start + SHARD)), MEAN, seed=start), {"layers": 1})
    picked = np.sort(rng.choice(ROWS, 1000, replace=False))
    expected = here.read([f"text {row}" for row in picked], "mean", [0])

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    there = store()
    assert (there.count_texts(), len(there.shard_sizes())) == (ROWS, ROWS // SHARD)
    assert there.has_column(text_keys([*(f"text {row}" for row in picked), "another"]), "mean", 0).sum() == 1000
    assert not list(there.path.glob("*.h5"))
    np.testing.assert_array_equal(there.read([f"text {row}" for row in picked], "mean", [0]), expected)

    name = sorted(path.name for path in there.shard_sizes())[-1]
    address = {"Bucket": "latents", "Key": f"of/corpus/org--model/{IDENTITY.name}/{name}"}
    content = bytearray(bucket.get_object(**address)["Body"].read())
    content[len(content) // 2] ^= 1
    bucket.put_object(**address, Body=bytes(content))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(MachineError, match="not those its name was made from"):
        store().read([f"text {row}" for row in picked], "mean", [0])


def test_what_is_not_allowed_or_not_there_is_one_line(bucket, tmp_path, monkeypatch):
    with pytest.raises(SpecError, match=r"s3://none/x/.*no such bucket"):
        LatentStore.at(local_cache("s3://none/x"), "org/model", IDENTITY).folder.check_writable()
    store().folder.check_writable()
    assert bucket.list_objects_v2(Bucket="latents")["KeyCount"] == 0
    store().append(block_of(keys_of(range(10)), MEAN), {"layers": 1})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    with pytest.raises(MachineError, match=r"cannot be listed: .*run the same command to go on") as raised:
        store().has_column(keys_of(range(10)), "mean", 0)
    assert "\n" not in str(raised.value)
