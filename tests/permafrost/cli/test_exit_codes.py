"""What a path is that no file system takes is one line and the exit code of bad input."""

import pytest

from permafrost.cli.exit_codes import describe_end


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b"])
def test_a_path_that_no_file_system_takes_is_bad_input(name, tmp_path):
    with pytest.raises((OSError, ValueError)) as raised:
        (tmp_path / name).read_bytes()
    code, said = describe_end(raised.value)
    assert code == 2
    assert said.startswith("InputError: ")
    assert len(said.splitlines()) == 1
    assert len(said) < 500


def test_a_link_to_itself_is_bad_input(tmp_path):
    (link := tmp_path / "link").symlink_to("link")
    with pytest.raises(OSError, match="symbolic links") as raised:
        link.read_bytes()
    assert describe_end(raised.value)[0] == 2
