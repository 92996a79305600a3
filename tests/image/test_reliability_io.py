"""Hostile, broken and enormous files; full disks, killed writers and threads."""

import bz2
import contextlib
import gzip
import io
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, NDData, StdDevUncertainty
from hypothesis import given
from hypothesis import strategies as st

from astrogan.exceptions import AstroganError, ImageReadError, ImageWriteError
from astrogan.image.read import read_bands, read_image
from astrogan.image.write import write_image

ROOT = Path(__file__).parents[2]


def run(code, *, limit="", **names):
    """Run a program of its own, for limits that would break the tests' process."""
    program = "import resource, sys\n" + textwrap.dedent(limit)
    program += "".join(f"{name} = {value!r}\n" for name, value in names.items()) + textwrap.dedent(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=environment)


def fits_header(bitpix, *axes, **cards):
    header = fits.Header([("SIMPLE", True), ("BITPIX", bitpix), ("NAXIS", len(axes))])
    for number, length in enumerate(axes, start=1):
        header[f"NAXIS{number}"] = length
    header["EXTEND"] = True
    header.update(cards)
    header["BUNIT"] = "adu"
    return header.tostring().encode()


def small_fits():
    """Image, mask, uncertainty, compressed image and table in one small file."""
    rng = np.random.default_rng(3)
    data = rng.normal(10, 1, (9, 11)).astype("f4")
    sky = {
        "CTYPE1": "RA---TAN-SIP",
        "CTYPE2": "DEC--TAN-SIP",
        "CRVAL1": 150.0,
        "CRVAL2": 2.0,
        "CRPIX1": 5.0,
        "CRPIX2": 5.0,
        "CD1_1": -1e-4,
        "CD2_2": 1e-4,
    }
    primary = fits.PrimaryHDU(
        data, fits.Header({"BUNIT": "adu", "FILTER": "g", "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5, **sky})
    )
    hdus = [
        primary,
        fits.ImageHDU((data > 11).astype("u1"), name="MASK"),
        fits.ImageHDU(data, fits.Header({"UTYPE": "StdDevUncertainty"}), name="UNCERT"),
        fits.ImageHDU(np.ones((3, 3), "f4") / 9, name="PSFIMAGE"),
        fits.CompImageHDU((data * 10).astype("i2"), fits.Header({"BUNIT": "adu"}), name="RICE"),
        fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])]),
    ]
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


# ---- what is no image --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; fetch it again"),
        (b"\n\n<!DOCTYPE html><html>404</html>", "web page.*download failed"),
        (b"<html>", "web page"),
        (b'{"error": "quota"}', "answer in text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04....", "NumPy .npz archive"),
        (b"\x93NUMPY\x01\x00", "numpy.load.*CCDData"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"#ASDF 1.0.0", "ASDF"),
        (b"GIF89a", "GIF"),
        (b"SIMPLE", "no FITS file"),
        (b"hello world" * 100, "no FITS file.*SIMPLE"),
        (gzip.compress(b"hello", mtime=0), "no FITS file"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"\x1f\x8b", "cannot be read"),
        (b"\x1f\x8bgarbage" * 10, "cannot be read"),
        (b"BZhgarbage" * 10, "cannot be read"),
        (b"\xfd7zXZ\x00garbage", "cannot be read"),
        (b"SIMPLE  =                    T".ljust(80), "cannot be read.*damaged or truncated"),
        (b"SIMPLE  =                    T".ljust(2880), "cannot be read"),
        (b"\xff\xd8\xffgarbage", "cannot be read"),
        (b"\x89PNG\r\n\x1a\ngarbage", "cannot be read"),
        (b"II*\x00garbage", "cannot be read"),
        (b"MM\x00*" + b"\0" * 100, "cannot be read"),
    ],
)
def test_what_is_no_image_says_what_it_is(tmp_path, content, message):
    path = tmp_path / "image.fits"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=rf"image\.fits.*{message}"):
        read_image(path, unit="adu")


def test_paths_without_an_image(tmp_path):
    with pytest.raises(ImageReadError, match=r"there is no file .*missing\.fits"):
        read_image(tmp_path / "missing.fits")
    with pytest.raises(ImageReadError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(ImageReadError, match="download it first"):
        read_image("https://example.org/image.fits")
    os.mkfifo(tmp_path / "pipe.fits")
    with pytest.raises(ImageReadError, match="no regular file"):
        read_image(tmp_path / "pipe.fits")
    (tmp_path / "dangling.fits").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ImageReadError, match="no file"):
        read_image(tmp_path / "dangling.fits")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ImageReadError, match="cannot be opened"):
        read_image(tmp_path / "file" / "image.fits")
    with pytest.raises(ImageReadError, match="cannot be opened"):
        read_image("x" * 5000)
    with pytest.raises(OSError, match="missing"):  # what code that does not know astrogan expects
        read_bands([tmp_path / "missing.fits"])


@contextlib.contextmanager
def unprivileged():
    """A folder of somebody who is not root, and that somebody: root may do everything everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = os.geteuid() == 0
        if root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)
            os.chmod(folder, 0o755)


def test_files_that_may_not_be_read():
    with unprivileged() as folder:
        path = folder / "image.fits"
        path.write_bytes(small_fits())
        path.chmod(0)
        with pytest.raises(ImageReadError, match="may not be read"):
            read_image(path)


def test_files_without_an_image_list_what_they_hold(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])], name="CATALOG")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "table.fits")
    with pytest.raises(ImageReadError, match=r"holds no image: 0: empty; 1 'CATALOG': table"):
        read_image(tmp_path / "table.fits")
    fits.PrimaryHDU(np.arange(5)).writeto(tmp_path / "spectrum.fits")
    with pytest.raises(ImageReadError, match=r"holds no image: 0: image 5"):
        read_image(tmp_path / "spectrum.fits")
    with pytest.raises(ImageReadError, match="holds no image"):
        read_bands(tmp_path / "table.fits")


# ---- truncated and lying -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_truncated_files_are_errors(tmp_path, pack):
    whole = pack(small_fits())
    path = tmp_path / "image.fits"
    for length in (1, 10, 81, 200, *((1440, 2880, 3000) if pack is bytes else ())):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageReadError, match=r"image\.fits"):
            read_image(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_header_larger_than_the_file_is_an_error(tmp_path, pack):
    path = tmp_path / "image.fits"
    path.write_bytes(pack(fits_header(-32, 300, 200) + b"\0" * 100_000))
    with pytest.raises(ImageReadError, match="truncated or its header is wrong"):
        read_image(path)
    path.write_bytes(pack(fits_header(-32, 300, 200) + b"\0" * 240_000))  # the padding may be missing
    assert read_image(path).shape == (200, 300)


def test_only_what_is_missing_is_lost(tmp_path):
    whole = small_fits()
    (tmp_path / "image.fits").write_bytes(whole[: 2 * 2880 + 10])
    image = read_image(tmp_path / "image.fits")
    assert image.shape == (9, 11)
    assert image.mask is None
    assert image.uncertainty is None


@pytest.mark.parametrize(
    "cards",
    [
        {"NAXIS1": -5},
        {"NAXIS1": 2.5},
        {"NAXIS1": "many"},
        {"NAXIS": 1000},
        {"NAXIS": -1},
        {"BITPIX": 17},
        {"BITPIX": 0},
        {"BITPIX": "x"},
        {"PCOUNT": -(10**6)},
        {"GCOUNT": 10**30},
        {"NAXIS2": 10**30},
        {"BSCALE": "x"},
        {"BZERO": True},
    ],
)
def test_headers_that_contradict_themselves(tmp_path, cards):
    path = tmp_path / "image.fits"
    path.write_bytes(fits_header(-32, 3, 2, **cards) + b"\0" * 2880)
    with pytest.raises(ImageReadError, match=r"image\.fits"):
        read_image(path)


def test_rubbish_behind_the_last_hdu_is_ignored(tmp_path):
    for tail in (b"rubbish", b"\0" * 5000, b"SIMPLE" * 1000, os.urandom(4000)):
        (tmp_path / "image.fits").write_bytes(small_fits() + tail)
        image = read_image(tmp_path / "image.fits")
        assert image.shape == (9, 11)
        assert image.mask is not None


def outcome(path, **options):
    """The image, or the error, if it is one that says what is wrong; anything else fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(path, max_pixels=10**6, **options)
        except AstroganError as error:
            image = error
    if isinstance(image, AstroganError):
        assert path.name in str(image) or "=" in str(image)
        return image
    assert isinstance(image, CCDData)
    assert image.data.dtype in (np.float32, np.float64)
    return image


def damaged(whole, rng):
    """A copy that was cut, or with some bits turned, bytes changed or pieces moved."""
    data = bytearray(whole)
    kind = rng.integers(5)
    if kind == 0:
        return bytes(data[: rng.integers(len(data))])
    if kind == 1:  # anywhere
        for _ in range(rng.integers(1, 20)):
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    elif kind == 2:  # in headers
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(min(2880, len(data)))] = int(rng.integers(32, 127))
    elif kind == 3:  # digits
        digits = [i for i, byte in enumerate(data[: 20 * 2880]) if 48 <= byte <= 57]
        for _ in range(rng.integers(1, 6)):
            data[digits[rng.integers(len(digits))]] = 48 + int(rng.integers(10))
    else:
        start, size = rng.integers(len(data)), rng.integers(1, 3000)
        del data[start : start + size]
    return bytes(data)


@pytest.mark.parametrize("hdu", [None, "RICE"])
def test_random_damage_gives_an_image_or_an_error_that_says_so(tmp_path, hdu):
    """200 truncations and flips; never an exception that is not astrogan's."""
    rng, whole = np.random.default_rng(20261121), small_fits()
    results = []
    for _ in range(200):
        (tmp_path / "image.fits").write_bytes(damaged(whole, rng))
        results.append(outcome(tmp_path / "image.fits", hdu=hdu))
    kinds = [isinstance(result, AstroganError) for result in results]
    assert 20 < sum(kinds) < 190, "the damage is too mild or too severe to test anything"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_random_damage_to_packed_files(tmp_path, pack):
    rng, whole = np.random.default_rng(20261122), pack(small_fits())
    for _ in range(60):
        (tmp_path / "image.fits").write_bytes(
            damaged(whole, rng) if len(whole) > 3000 else whole[: rng.integers(len(whole))]
        )
        outcome(tmp_path / "image.fits")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_random_damage_to_pictures(tmp_path, suffix):
    from PIL import Image

    rng = np.random.default_rng(20261123)
    path = tmp_path / f"image{suffix}"
    Image.fromarray(rng.integers(0, 255, (40, 50, 3)).astype("u1")).save(path)
    whole = path.read_bytes()
    for _ in range(60):
        path.write_bytes(damaged(whole, rng))
        outcome(path)


@given(st.binary(max_size=4000))
def test_any_bytes_after_a_good_start(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "image.fits"
    path.write_bytes(b"SIMPLE  =                    T".ljust(80) + content)
    outcome(path)


# ---- bombs -------------------------------------------------------------------------------------------------------

AS_LIMIT = """
    resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
"""


def zeros(header, size, pack=lambda: zlib.compressobj(9, zlib.DEFLATED, 31)):
    """A packed file of a header and very many zeros, made without holding them."""
    packer, block = pack(), bytes(2**22)
    parts = [packer.compress(header)]
    parts += [packer.compress(block) for _ in range(size // len(block))]
    return b"".join([*parts, packer.flush()])


@pytest.mark.parametrize("pack", ["gz", "plain"])
def test_images_larger_than_max_pixels_are_refused_before_they_are_read(tmp_path, pack):
    header = fits_header(-32, 60_000, 60_000)
    (tmp_path / "image.fits").write_bytes(zeros(header, 2**25) if pack == "gz" else header)
    start = time.perf_counter()
    with pytest.raises(ImageReadError, match=r"60000 x 60000 pixels, more than max_pixels=1073741824.*--max-pixels"):
        read_image(tmp_path / "image.fits")
    assert time.perf_counter() - start < 5
    (tmp_path / "small.fits").write_bytes(small_fits())
    with pytest.raises(ImageReadError, match="max_pixels=98"):
        read_image(tmp_path / "small.fits", max_pixels=98)
    assert read_image(tmp_path / "small.fits", max_pixels=99).shape == (9, 11)


def test_bands_together_are_held_to_max_pixels(tmp_path):
    write_image({name: NDData(np.ones((10, 10)), unit="adu") for name in "gri"}, tmp_path / "image.fits")
    with pytest.raises(ImageReadError, match="300 pixels in 3 bands"):
        read_image(tmp_path / "image.fits", max_pixels=299)
    assert read_image(tmp_path / "image.fits", max_pixels=100, hdu="r").shape == (10, 10)


def test_a_gzip_bomb_costs_no_memory(tmp_path):
    """Two megabytes that claim, and unpack to, two gigabytes; and what hides behind a small image."""
    huge = fits_header(-32, 2**14, 2**15)
    (tmp_path / "bomb.fits.gz").write_bytes(zeros(huge, 2**28))
    small = fits_header(-32, 3, 2) + b"\0" * 2880
    extension = huge.replace(b"SIMPLE  =                    T", b"XTENSION= 'IMAGE   '          ")
    (tmp_path / "behind.fits.gz").write_bytes(zeros(small + extension, 2**28))
    (tmp_path / "tail.fits.gz").write_bytes(zeros(small, 2**28))
    result = run(
        """
        from astrogan.image.read import read_image
        from astrogan.exceptions import ImageReadError
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read_image(folder + "/bomb.fits.gz", max_pixels=10**8)
        except ImageReadError as error:
            print("refused", "max_pixels" in str(error))
        print(read_image(folder + "/behind.fits.gz", max_pixels=10**8).shape)
        print(read_image(folder + "/tail.fits.gz", max_pixels=10**8).shape)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024 < 200)
        """,
        limit=AS_LIMIT,
        folder=str(tmp_path),
    )
    assert result.stdout.split("\n")[:4] == ["refused True", "(2, 3)", "(2, 3)", "True"], result.stderr


def test_a_header_without_end_costs_no_memory(tmp_path):
    card = b"COMMENT nothing".ljust(80)
    (tmp_path / "image.fits.gz").write_bytes(zeros(b"SIMPLE  =                    T".ljust(80), 2**28))
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(b"SIMPLE  =                    T".ljust(80))]
    parts += [packer.compress(card * 2**15) for _ in range(100)]
    (tmp_path / "cards.fits.gz").write_bytes(b"".join([*parts, packer.flush()]))
    for name in ("image.fits.gz", "cards.fits.gz"):
        with pytest.raises(ImageReadError, match="header is longer than"):
            read_image(tmp_path / name)


def test_thousands_of_hdus_end_somewhere(tmp_path):
    empty = fits.ImageHDU().header.tostring().encode()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = packer.compress(fits_header(-32, 3, 2) + b"\0" * 2880) + packer.compress(empty * 20_000) + packer.flush()
    (tmp_path / "image.fits.gz").write_bytes(body)
    start = time.perf_counter()
    assert read_image(tmp_path / "image.fits.gz").shape == (2, 3)
    assert time.perf_counter() - start < 20


def test_a_memory_that_is_too_small_is_an_error_with_the_remedy(tmp_path):
    path = tmp_path / "image.fits"
    with open(path, "wb") as stream:  # a sparse file: four gigabytes that take no room
        stream.write(fits_header(-32, 2**15, 2**15))
        stream.truncate(2880 + 2**32)
    result = run(
        """
        from astrogan.image.read import read_image
        from astrogan.exceptions import ImageReadError
        try:
            read_image(path)
        except ImageReadError as error:
            print("section=" in str(error) and "memory" in str(error))
        print(read_image(path, section=(slice(20_000, 20_010), slice(5, 15)), max_pixels=100).shape)
        """,
        limit=AS_LIMIT,
        path=str(path),
    )
    assert result.stdout.split("\n")[:2] == ["True", "(10, 10)"], result.stderr


def test_reading_takes_little_more_than_the_image(tmp_path):
    """An image of 144 MB: reading it has its mask beside it, writing it nothing; no second copy is made."""
    path = tmp_path / "image.fits"
    with open(path, "wb") as stream:
        stream.write(fits_header(-32, 6000, 6000))
        stream.truncate(2880 + 144_000_000 + 2880)
    result = run(
        """
        from astrogan.image.read import read_image
        from astrogan.image.write import write_image
        import astropy.nddata, astropy.wcs
        read_image(path, section=(slice(0, 3), slice(0, 3)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        image = read_image(path)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(image.shape, image.mask is None, after - before < 270)
        write_image(image, path + ".new.fits")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - after < 60)
        """,
        path=str(path),
    )
    (tmp_path / "image.fits.new.fits").unlink(missing_ok=True)
    assert result.stdout.split("\n")[:2] == ["(6000, 6000) True True", "True"], result.stderr + result.stdout


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_picture_bombs(tmp_path, kind):
    from PIL import Image

    path = tmp_path / f"image.{kind.lower()}"
    Image.new("L", (9000, 9000)).save(path, **({"compression": "tiff_deflate"} if kind == "TIFF" else {}))
    assert path.stat().st_size < 300_000
    with pytest.raises(ImageReadError, match="max_pixels=1000000"):
        read_image(path, max_pixels=10**6)


# ---- full disks, killed writers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["image.fits", "image.fits.gz"])
def test_a_full_disk_leaves_the_old_file(tmp_path, name):
    path = tmp_path / name
    write_image(NDData(np.ones((8, 8)), unit="adu"), path)
    old = path.read_bytes()
    result = run(
        """
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        import numpy as np
        from astropy.nddata import NDData
        from astropy.table import Table
        from astrogan.image.write import write_image, write_table
        from astrogan.exceptions import ImageWriteError
        noise = np.random.default_rng(0).normal(size=(300, 300))
        for what in (lambda: write_image(NDData(noise, unit="adu"), path, overwrite=True),
                     lambda: write_image([NDData(noise, unit="adu")] * 3, folder + "/new.fits"),
                     lambda: write_table(Table({"a": noise.ravel()}), folder + "/new.ecsv"),
                     lambda: write_table(Table({"a": noise.ravel()}), folder + "/new-table.fits")):
            try:
                what()
            except ImageWriteError as error:
                print("untouched" in str(error))
        """,
        path=str(path),
        folder=str(tmp_path),
    )
    assert result.stdout.split() == ["True"] * 4, result.stderr
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_read_only_folder():
    with unprivileged() as folder:
        path = folder / "image.fits"
        write_image(NDData(np.ones((8, 8)), unit="adu"), path)
        old = path.read_bytes()
        folder.chmod(0o555)
        for target in (path, folder / "new.fits"):
            with pytest.raises(ImageWriteError, match="Permission denied.*untouched"):
                write_image(NDData(np.zeros((8, 8)), unit="adu"), target, overwrite=True)
        assert path.read_bytes() == old
        assert [p.name for p in folder.iterdir()] == ["image.fits"]


def test_disk_errors_while_flushing_or_renaming(tmp_path, monkeypatch):
    path = tmp_path / "image.fits"
    write_image(NDData(np.ones((8, 8)), unit="adu"), path)
    old = path.read_bytes()

    def broken(*_, **__):
        raise OSError(5, "Input/output error")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"astrogan.image.write.os.{name}", broken)
            with pytest.raises(ImageWriteError, match="Input/output error"):
                write_image(NDData(np.zeros((8, 8)), unit="adu"), path, overwrite=True)
        assert path.read_bytes() == old
        assert [p.name for p in tmp_path.iterdir()] == ["image.fits"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "image.fits"
    write_image(NDData(np.ones((8, 8)), unit="adu"), path)
    old = path.read_bytes()
    program = f"""
import numpy as np
from astropy.nddata import NDData
import astrogan.image.write as write
write._CHUNK = 100_000
plain = write._big_endian
def slow(rows):
    import time
    print("writing", flush=True)
    time.sleep(0.05)
    return plain(rows)
write._big_endian = slow
write.write_image(NDData(np.zeros((2000, 2000)), unit="adu"), {str(path)!r}, overwrite=True)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    for _ in range(5):
        assert writer.stdout.readline() == b"writing\n"
    writer.send_signal(signal.SIGKILL)
    assert writer.wait(30) == -signal.SIGKILL
    writer.stdout.close()
    assert path.read_bytes() == old
    left = [p for p in tmp_path.iterdir() if p != path]
    assert len(left) == 1
    assert left[0].name.startswith(".")  # what a kill leaves is hidden, and nobody takes it for the image
    write_image(NDData(np.zeros((8, 8)), unit="adu"), path, overwrite=True)
    assert read_image(path).data.sum() == 0


def test_ctrl_c_while_writing(tmp_path, monkeypatch):
    path = tmp_path / "image.fits"
    write_image(NDData(np.ones((8, 8)), unit="adu"), path)
    old = path.read_bytes()

    def interrupted(rows):
        raise KeyboardInterrupt

    monkeypatch.setattr("astrogan.image.write._big_endian", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_image(NDData(np.zeros((8, 8)), unit="adu"), path, overwrite=True)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["image.fits"]


def test_writers_in_several_processes_leave_one_whole_file(tmp_path):
    path = tmp_path / "image.fits"
    program = f"""
import sys
import numpy as np
from astropy.nddata import NDData
from astrogan.image.write import write_image
for _ in range(10):
    write_image(NDData(np.full((200, 200), float(sys.argv[1])), unit="adu"), {str(path)!r}, overwrite=True)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    writers = [subprocess.Popen([sys.executable, "-c", program, str(number)], env=environment) for number in range(3)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            values = np.unique(read_image(path).data)
            assert len(values) == 1
            seen.add(float(values[0]))
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert seen
    assert [p.name for p in tmp_path.iterdir()] == ["image.fits"]


# ---- threads, warnings, determinism ------------------------------------------------------------------------------


def test_eight_threads_read_what_one_reads(tmp_path):
    (tmp_path / "image.fits").write_bytes(small_fits())
    expected = read_image(tmp_path / "image.fits")
    results, errors = [], []

    def read():
        try:
            for _ in range(10):
                results.append(read_image(tmp_path / "image.fits"))
        except Exception as error:
            errors.append(error)

    filters = list(warnings.filters)
    threads = [threading.Thread(target=read) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert errors == []
    assert len(results) == 80
    for image in results:
        np.testing.assert_array_equal(image.data, expected.data)
        np.testing.assert_array_equal(image.mask, expected.mask)
        np.testing.assert_array_equal(image.uncertainty.array, expected.uncertainty.array)
        assert image.meta.tostring() == expected.meta.tostring()
    assert warnings.filters == filters


def test_oddities_of_headers_are_nobodys_business(tmp_path, capfd):
    """No warnings, which the tests make errors, and nothing on the screen from astropy's log."""
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 1.0, "CRPIX2": 1.0, "CD1_1": 1e-4, "CD2_2": 1e-4}
    cards |= {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5, "DATE-OBS": "26/10/92", "MJD-OBS": 48921.6, "RADECSYS": "FK5"}
    (tmp_path / "image.fits").write_bytes(fits_header(-32, 3, 2, **cards) + b"\0" * 2880)
    image = read_image(tmp_path / "image.fits")
    write_image(image, tmp_path / "new.fits")
    assert image.wcs is not None
    assert capfd.readouterr() == ("", "")


def test_files_are_closed(tmp_path):
    """Also after errors, and although nobody looks at the image any more."""
    (tmp_path / "image.fits").write_bytes(small_fits())
    (tmp_path / "short.fits").write_bytes(small_fits()[:3000])
    before = set(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    for _ in range(5):
        read_image(tmp_path / "image.fits", hdu="RICE")
        for path in ("image.fits", "short.fits"):
            with pytest.raises(AstroganError):
                read_image(tmp_path / path, hdu=17)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= len(before)


def test_reading_and_writing_leave_the_image_alone(tmp_path):
    image = CCDData(np.arange(12.0).reshape(3, 4), unit="adu", uncertainty=StdDevUncertainty(np.ones((3, 4))))
    image.mask = np.eye(3, 4, dtype=bool)
    for array in (image.data, image.mask, image.uncertainty.array):
        array.setflags(write=False)
    write_image(image, tmp_path / "image.fits")
    assert image.meta == {}
    np.testing.assert_array_equal(read_image(tmp_path / "image.fits").data, image.data)
