"""A digest of code changes with all that the code uses, and with nothing else."""

import importlib
import sys

import pytest
import torch
from torch import nn

from permafrost.data.code.parts import code_digest

HELPERS = {"weights": "W = {k}\ndef scale(h): return h * W\n", "impl": "from pack.weights import scale\n"}

REACHING = {
    "a constant": "K = {k}\ndef f(h): return [h[K] for _ in (0,)]",
    "a function of another module": "from .impl import scale\ndef f(h): return scale(h)",
    "a module and what it imports": "from . import impl\ndef f(h): return impl.scale(h)",
    "a dotted module": "import pack.impl\ndef f(h): return pack.impl.scale(h)",
    "an import inside": "def f(h):\n    from pack.weights import scale\n    return scale(h)",
    "a relative import inside": "def f(h):\n    from .impl import scale\n    return scale(h)",
    "a module imported inside": "def f(h):\n    from . import impl\n    return impl.scale(h)",
    "a property": "class A:\n  @property\n  def k(self): return {k}\n  def __call__(self, h): return self.k\nf = A()",
    "a slot": "class A:\n    __slots__ = ('k',)\nf = A()\nf.k = {k}\nA.__call__ = lambda self, h: self.k",
    "a cached function": "import functools\n@functools.cache\ndef k(): return {k}\ndef f(h): return k()",
    "a wrapped function": "import torch\n@torch.no_grad()\ndef f(h): return h[{k}]",
    "a closure": "def make(k):\n    return lambda h: h[k]\nf = make({k})",
    "a method": "class A:\n    def __init__(self): self.k = {k}\n    def pool(self, h): return h[self.k]\nf = A().pool",
    "an array": "import numpy\nD = dict(w=numpy.arange({k}))\ndef f(h): return D['w']",
    "an object of another package": "import fractions\nD = fractions.Fraction({k}, 7)\ndef f(h): return D",
    "compiled code": "import torch\n@torch.jit.script\ndef f(h):\n    return h[{k}]",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Body of a module and a number -> digest of its function ``f``, with helpers that hold the number."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def digest(body, k=1, written=""):
        (tmp_path / "pack").mkdir(exist_ok=True)
        files = {"__init__": "", "top": body} | HELPERS
        for name, text in files.items():
            (tmp_path / "pack" / f"{name}.py").write_text(text.replace("{k}", str(k)) + "\n", "utf-8")
        for name in [name for name in sys.modules if name.partition(".")[0] == "pack"]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        function = importlib.import_module("pack.top").f
        if written:
            (tmp_path / "pack" / "top.py").write_text(written, "utf-8")
        return code_digest(function)

    return digest


@pytest.mark.parametrize("body", REACHING.values(), ids=REACHING)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_follows_all_that_the_code_reaches(body, package):
    assert package(body, 1) == package(body, 1) != package(body, 2)


def test_comments_and_white_space_do_not_count(package):
    assert package("def f(h):\n    return h + 1") == package("def f(h):  # more\n\n    return h +  1")


def test_it_is_of_the_code_that_runs_where_the_file_has_changed_since(package):
    before, after = "def f(h):\n    return h[0]", "def f(h):\n    return h[1]"
    assert package(before, written=after) not in (package(after), package(before))


def test_functions_of_one_line_differ():
    first, second = (lambda h: h[0]), (lambda h: h[1])
    assert code_digest(first) != code_digest(second)


class Attention(nn.Module):
    def __init__(self, seed, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(seed)
        self.query = nn.Sequential(nn.Linear(4, 1, dtype=dtype))

    def forward(self, hidden, mask):
        return self.query(hidden)


def test_weights_of_modules_count_of_any_dtype():
    with torch.random.fork_rng():
        for dtype in (torch.float32, torch.bfloat16):
            first, again, other = (code_digest(Attention(seed, dtype)) for seed in (0, 0, 1))
            assert first == again != other


@pytest.mark.parametrize("function", [nn.functional.cross_entropy, nn.functional.normalize, torch.amax])
def test_a_function_of_a_library_counts_by_name(function):
    assert code_digest(function) == code_digest(function) != code_digest(torch.amin)
