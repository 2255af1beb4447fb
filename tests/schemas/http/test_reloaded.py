"""What is made of files: made anew when they change, and never worse than it was."""

from __future__ import annotations

import errno

import pytest

from schemas.http.reloaded import Renewed


class Numbers:
    """A file with a number in it, and what was told of it."""

    def __init__(self, path):
        self.path = path
        self.told = []
        self.reads = 0
        self.now = 0.0
        self.trouble = None
        self.renewed = Renewed(
            [path], self._read, wrong=(OSError, ValueError), told=self.told.append, clock=lambda: self.now
        )

    def _read(self):
        self.reads += 1
        if self.trouble is not None:
            raise self.trouble
        return int(self.path.read_text())

    def write(self, text):
        """Replace the file: no two have the same inode."""
        beside = self.path.with_suffix(f".{self.reads}")
        beside.write_text(text)
        beside.replace(self.path)


@pytest.fixture
def numbers(tmp_path):
    """One whose file says 1."""
    numbers = Numbers(tmp_path / "number")
    numbers.write("1")
    return numbers


def test_read_once_for_each_change(numbers):
    """Nothing is read before the first use, nor twice without a change."""
    assert numbers.reads == 0
    assert [numbers.renewed.now() for _ in range(3)] == [1, 1, 1]
    numbers.write("2")
    assert [numbers.renewed.now() for _ in range(3)] == [2, 2, 2]
    assert numbers.reads == 2
    assert numbers.told == [None]


def test_the_last_good_one_stays(numbers):
    """What cannot be used, or is gone, is told once and changes nothing; what can be used again ends the trouble."""
    numbers.renewed.now()
    numbers.write("half")
    assert [numbers.renewed.now() for _ in range(2)] == [1, 1]
    assert "half" in str(numbers.renewed.trouble)
    numbers.path.unlink()
    assert [numbers.renewed.now() for _ in range(2)] == [1, 1]
    assert isinstance(numbers.renewed.trouble, FileNotFoundError)
    numbers.write("3")
    assert numbers.renewed.now() == 3
    assert numbers.renewed.trouble is None
    assert [type(each) for each in numbers.told] == [ValueError, FileNotFoundError, type(None)]


def test_trouble_that_is_not_the_files_ends_without_a_change_of_theirs(numbers):
    """With no free descriptor a new file cannot be read; it is tried again, ever more rarely, and told once."""
    numbers.renewed.now()
    numbers.write("2")
    numbers.trouble = OSError(errno.EMFILE, "Too many open files")
    tries = []
    for second in range(200):
        numbers.now = float(second)
        before = numbers.reads
        assert numbers.renewed.now() == 1
        tries += [second] * (numbers.reads - before)
    assert tries == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    numbers.trouble = None
    numbers.now = 300.0
    assert (numbers.renewed.now(), numbers.renewed.trouble) == (2, None)
    assert [type(each) for each in numbers.told] == [OSError, type(None)]


def test_at_first_it_has_to_work(numbers):
    """Without a good one there is nothing to go on with; once there is, it is taken, and nothing is told."""
    numbers.write("none")
    for _ in range(2):
        with pytest.raises(ValueError, match="none"):
            numbers.renewed.now()
    numbers.write("4")
    assert numbers.renewed.now() == 4
    assert numbers.told == []


def test_a_bug_is_not_trouble_with_files(numbers):
    """What is not named as wrong is raised, whenever it happens."""
    numbers.renewed.now()
    numbers.write("5")
    numbers.path = None
    with pytest.raises(AttributeError):
        numbers.renewed.now()
