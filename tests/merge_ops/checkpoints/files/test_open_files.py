"""A bounded number of files is open, whatever is read, and each stays the file it was."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.files.open_files import OpenFiles, PooledFile, raised_limit
from merge_ops.errors import UnreadableFileError


def opened(path, pool):
    return PooledFile(str(path), lambda: os.open(path, os.O_RDONLY), pool)


def read(file, offset=0, count=4):
    buffer = memoryview(bytearray(count))
    return bytes(buffer[: file.preadv(buffer, offset)])


def files_in(folder, count):
    paths = [folder / f"{number}" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(b"%04d" % number)
    return paths


def test_more_files_than_may_be_open(tmp_path):
    pool = OpenFiles(3)
    files = [opened(path, pool) for path in files_in(tmp_path, 20)]
    assert pool.open_count == 3
    for _ in range(2):
        assert [read(each) for each in files] == [b"%04d" % n for n in range(20)]
        assert pool.open_count == 3
    for each in files:
        each.close()
    assert pool.open_count == 0


def test_the_longest_unread_one_is_closed(tmp_path):
    pool = OpenFiles(2)
    one, two = (opened(path, pool) for path in files_in(tmp_path, 2))
    read(one)
    three = opened(files_in(tmp_path, 3)[2], pool)
    assert (one.opened >= 0, two.opened >= 0, three.opened >= 0) == (True, False, True)


def test_a_file_that_is_read_is_never_closed_below_the_reader(tmp_path):
    pool = OpenFiles(2)
    files = [opened(path, pool) for path in files_in(tmp_path, 12)]
    wrong = threading.Event()

    def work(number):
        for turn in range(200):
            place = (number * 7 + turn) % 12
            if read(files[place]) != b"%04d" % place:
                wrong.set()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert not wrong.is_set()
    assert pool.open_count <= 2


def test_a_file_that_was_replaced_is_not_read_on(tmp_path):
    pool = OpenFiles(1)
    one, two = files_in(tmp_path, 2)
    first = opened(one, pool)
    opened(two, pool)
    one.unlink()
    one.write_bytes(b"other")
    with pytest.raises(OSError, match="it changed while it was read"):
        read(first)
    assert pool.open_count <= 1


def test_one_that_is_gone_is_told(tmp_path):
    pool = OpenFiles(1)
    one, two = files_in(tmp_path, 2)
    first = opened(one, pool)
    opened(two, pool)
    one.unlink()
    with pytest.raises(FileNotFoundError):
        read(first)


def test_where_others_hold_all_descriptors_ours_give_way(tmp_path):
    pool, answers = OpenFiles(100), []
    one, two = files_in(tmp_path, 2)
    opened(one, pool)

    def scarce():
        if pool.open_count:
            answers.append("none left")
            raise OSError(24, "Too many open files")
        return os.open(two, os.O_RDONLY)

    assert read(PooledFile(str(two), scarce, pool)) == b"0001"
    assert answers == ["none left"]


def test_a_closed_file_may_be_closed_again_and_its_source_used_again(tmp_path):
    files_in(tmp_path, 1)
    source = FolderSource(tmp_path)
    buffer = bytearray(4)
    for _ in range(2):
        source.read_into("0", 0, memoryview(buffer))
        assert buffer == b"0000"
        source.close()
        source.close()


def test_the_limit_is_raised_as_far_as_it_may():
    import resource

    limit = raised_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limit == soft
    assert soft == min(hard, 65_536) or soft >= 65_536


def test_a_file_written_anew_and_shorter_since_it_was_listed(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}" * 100)
    source = FolderSource(tmp_path)
    size = source.sizes()["tokenizer.json"]
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UnreadableFileError, match=r"tokenizer\.json ends at byte 2, before what"):
        source.read_into("tokenizer.json", 0, memoryview(bytearray(size)))
    source.close()
