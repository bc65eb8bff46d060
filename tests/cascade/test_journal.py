"""A journal gives back what was added, whatever was cut off or overwritten at its end."""

import numpy as np
import pytest

from robustgen.cascade.journal import Decision, JournalError, open_journal

IDENTITY = {"cascade": "AA", "seed": 0}
SHAPE = (2, 3)
DECISIONS = [
    Decision(0, 5, 0, 101, None),
    Decision(0, 6, 0, 3, np.arange(6, dtype=np.float32).reshape(SHAPE) / 7),
    Decision(1, 5, 8, 101, None),
]


@pytest.fixture
def path(tmp_path):
    """A closed journal with DECISIONS."""
    journal = open_journal(tmp_path / "journal", IDENTITY, SHAPE)
    for decision in DECISIONS:
        journal.add(decision)
    journal.close()
    return tmp_path / "journal"


def past(path, identity=IDENTITY):
    journal = open_journal(path, identity, SHAPE)
    journal.close()
    return journal.past


def equal(first, second):
    return first[:4] == second[:4] and np.array_equal(first.x_adv, second.x_adv)


def test_what_was_added_comes_back(path):
    assert all(map(equal, past(path), DECISIONS)) and len(past(path)) == 3
    assert past(path)[1].x_adv.dtype == np.float32


def test_cut_anywhere_it_gives_a_beginning_and_goes_on(path):
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        kept = past(path)
        assert all(map(equal, kept, DECISIONS)) and len(kept) < 3
    journal = open_journal(path, IDENTITY, SHAPE)
    assert len(journal.past) == 2
    journal.add(DECISIONS[2])
    journal.close()
    assert path.read_bytes() == whole


def test_a_flipped_byte_ends_what_is_believed(path):
    whole = path.read_bytes()
    for position in range(len(whole) - 40, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 0x40
        path.write_bytes(damaged)
        kept = past(path)
        assert all(map(equal, kept, DECISIONS)) and len(kept) < 3


def test_another_evaluation_is_refused_and_nothing_is_lost(path):
    before = path.read_bytes()
    with pytest.raises(JournalError, match="other seed"):
        past(path, {**IDENTITY, "seed": 1})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"index,label\n0,3\n", b"\0" * 300])
def test_a_file_of_another_kind_is_left_as_it_is(tmp_path, content):
    (tmp_path / "data.csv").write_bytes(content)
    with pytest.raises(JournalError, match="no journal"):
        past(tmp_path / "data.csv")
    assert (tmp_path / "data.csv").read_bytes() == content


def test_without_a_path_nothing_is_kept():
    journal = open_journal(None, IDENTITY, SHAPE)
    journal.add(DECISIONS[0])
    journal.close()
    assert journal.past == []
