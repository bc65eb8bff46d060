"""A file is replaced whole or not at all, whatever stops the writing."""

import os

import pytest

from robustgen.files import replace_file, write_whole


def test_a_new_file_is_readable_by_all_and_its_folder_is_made(tmp_path):
    path = replace_file(tmp_path / "a" / "b.json", b"new")
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o644


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = replace_file(tmp_path / "run.json", b"old")

    def full(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file_and_no_other(tmp_path):
    path = replace_file(tmp_path / "x.npy", b"old")

    def interrupted(file):
        file.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, interrupted)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
