"""Verdicts on disk: no damage gives wrong ones."""

import numpy as np

from jl1.runs.verdicts import Verdicts, join, read_verdicts, worst_case, write_verdicts

VERDICTS = Verdicts(np.array([True, False, False]), np.array(["", "fgsm", "clean"]))


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_file_with_any_byte_cut_off_or_flipped_gives_the_same_verdicts_or_none(tmp_path):
    path, notices = tmp_path / "file.npz", []
    write_verdicts(path, VERDICTS, digest="a")
    content = path.read_bytes()
    damaged = [content[:length] for length in range(0, len(content), 7)]
    damaged += [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(len(content))]
    for bad in damaged:
        path.write_bytes(bad)
        read = read_verdicts(path, digest="a", notice=notices.append)
        assert read is None or same(read, VERDICTS)
    assert len(notices) > len(damaged) / 2
    assert all("is damaged, it is computed again" in notice for notice in notices)


def test_verdicts_are_read_for_their_digest_alone(tmp_path):
    path, notices = tmp_path / "folder" / "file.npz", []
    assert read_verdicts(path, digest="a", notice=notices.append) is None
    write_verdicts(path, VERDICTS, digest="a")
    assert same(read_verdicts(path, digest="a"), VERDICTS)
    assert read_verdicts(path, digest="b", notice=notices.append) is None
    assert notices == []


def test_a_point_is_put_down_to_the_first_attack_that_broke_it():
    stronger = Verdicts(np.array([False, False, False]), np.array(["standard", "standard", "clean"]))
    worst = worst_case([VERDICTS, stronger])
    assert worst.broken_by.tolist() == ["standard", "fgsm", "clean"]
    assert not worst.stands.any()
    assert join([VERDICTS, stronger]).broken_by.tolist() == [*VERDICTS.broken_by, *stronger.broken_by]
