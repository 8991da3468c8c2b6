"""What is mutated, and the tests that must notice: for each module its test files, the quickest and strongest first."""

CAPTURE = "tests/extract/capture/"
STORE = "tests/data/store/"

SUBJECTS: dict[str, tuple[str, ...]] = {
    "extract/capture/packing.py": (
        CAPTURE + "test_layout.py",
        CAPTURE + "test_packs.py",
        CAPTURE + "test_packing.py",
    ),
    "extract/capture/pooling.py": (
        CAPTURE + "test_pooling.py",
        CAPTURE + "test_window_pools.py",
        CAPTURE + "test_own_poolings.py",
    ),
    "data/store/shard_layout.py": (
        STORE + "test_shard_layout.py",
        STORE + "test_shard.py",
    ),
    "data/store/identity.py": (
        STORE + "test_identity.py",
        "tests/data/test_spec.py",
    ),
    "extract/backbones/identity.py": (
        "tests/extract/backbones/test_digests.py",
        "tests/extract/backbones/test_identity.py",
    ),
}
