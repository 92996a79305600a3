"""The benchmark of mosaics, on a small one."""

import pytest

from astrogan.bench import mosaic
from astrogan.exceptions import InputError


def test_a_killed_run_ends_like_one_piece(tmp_path):
    (table,) = mosaic.run(sizes=(600,), methods=("wiener",), parts=("kill",), out=tmp_path).values()
    (row,) = table
    assert 0 < row["killed_after"] < row["tiles"]
    assert row["tiles_not_redone"] >= row["killed_after"]
    assert row["error"] < 1e-5
    assert 0 < row["peak_mb"] < 3000
    assert [path.name for path in tmp_path.iterdir()] == ["mosaic-kill.ecsv"]


def test_a_part_is_the_whole_program_in_small(tmp_path):
    path = mosaic._mosaic(tmp_path, 512, 0)
    found = mosaic.child(str(path), str(tmp_path / "out.fits"), "wiener", digest=True)
    assert found["done"] == found["total"]
    assert len(found["digest"]) == 64
    assert found["cpu"] > 0


@pytest.mark.parametrize("wrong", [{"parts": ("speed",)}, {"methods": ("magic",)}, {"sizes": (100,)}, {"sizes": ()}])
def test_what_it_does_not_know_is_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        mosaic.run(**wrong)
