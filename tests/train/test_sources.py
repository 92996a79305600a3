"""Sources give linear images with names by which a split keeps objects, and pixels, apart."""

import io
import pickle
import sys
import tarfile
import tomllib

import numpy as np
import pytest
from astropy.io import fits

from astrogan.exceptions import ImageReadError, InputError, MissingDependencyError
from astrogan.image.stretch import GalaxyGAN2017Stretch
from astrogan.train.sources import (
    Field,
    FitsFolder,
    Mix,
    Sample,
    SimulatedStream,
    Source,
    StampTar,
    Subset,
    open_source,
    open_sources,
)
from astrogan.train.split import part_of

LINEAR = """
[[data]]
kind = "fits"
path = "jwst_ceers_stamps"
origin = "JWST CEERS"
weight = 3

[[data]]
kind = "field"
box = 128
pixel_scale = 0.34
psf_fwhm = "stars"
region = [0, 1950, 0, 1300]
avoid = [[850, 890, 0, 2600]]
origin = "ESO KiDS and VIKING"
weight = 3
[data.paths]
g = "kids_viking_field/g.fits"
r = "kids_viking_field/r.fits"
i = "kids_viking_field/i.fits"

[[data]]
kind = "fits"
path = "cosmos_hst_galsim/btk/cosmos/real_galaxy_images_extension.fits"
hdus = "each"
min_size = 40
pixel_scale = 0.03
origin = "HST COSMOS F814W, from BlendingToolKit"
licence = "MIT"
weight = 1

[[data]]
kind = "fits"
path = "cosmos_hst_galsim/galsim/tests/real_comparison_images"
pattern = "AEGIS_F*w_images_*.fits"
hdus = "each"
name = '(images_\\d+)'
pixel_scale = 0.03
origin = "HST AEGIS F606W and F814W, from GalSim"
licence = "BSD"
weight = 0.2

[[data]]
kind = "fits"
path = "sdss_stamps_ugriz"
pattern = "*/stamp-*.fits.gz"
hdus = "pairs"
one_object_a_file = true
name = 'stamp-[ugriz]-(.+?)\\.fits'
unit = "nanomaggy"
origin = "SDSS"
weight = 0.5

[[data]]
kind = "simulated"
size = 128
weight = 2
"""


class Numbers(Source):
    """One-pixel images that hold their own number."""

    def __init__(self, count, bands=("any",), objects=None):
        self.bands, self._count, self._objects = bands, count, objects or count

    def __len__(self):
        return self._count

    def name(self, i):
        return f"{self._count}: {self._checked(i) % self._objects}"

    def load(self, i):
        return Sample(np.full((len(self.bands), 1, 1), self._checked(i), np.float32))

    def describe(self):
        return {"kind": "numbers", "images": self._count, "objects": self._objects}


def check(source):
    """What holds for every source."""
    again = pickle.loads(pickle.dumps(source))
    assert len(again) == len(source) > 0
    for i in {0, len(source) // 2, len(source) - 1}:
        sample, other = source.load(i), again.load(i)
        assert sample.data.dtype == np.float32
        assert sample.data.ndim == 3
        assert len(sample.data) == len(source.bands)
        assert np.isfinite(sample.data).all()
        assert sample.data.flags.writeable
        assert np.array_equal(sample.data, other.data)
        if sample.variance is not None:
            assert sample.variance.shape == sample.data.shape
            assert sample.variance.dtype == np.float32
            assert (sample.variance > 0).all()
        assert isinstance(source.name(i), str)
        assert source.name(i) == again.name(i)
        before = sample.data.copy()
        sample.data[:] = -7
        assert np.array_equal(source.load(i).data, before), "a caller's change came back"
    for i in (-1, len(source), 0.5, True):
        with pytest.raises(InputError, match="number of an image, from 0 to"):
            source.load(i)
    about = source.describe()
    assert about["images"] == len(source)
    assert 0 < about["objects"] <= about["images"]
    return source


# ---- mixing ------------------------------------------------------------------------------------------------------


def test_mix_draws_by_weight_and_counts_through(rng):
    mix = Mix([Numbers(10), Numbers(1000)], weights=[3, 1])
    check(mix)
    assert [float(mix.load(i).data[0, 0, 0]) for i in (0, 9, 10, 1009)] == [0, 9, 0, 999]
    assert [mix.name(i) for i in (9, 10)] == ["10: 9", "1000: 0"]
    drawn = np.array([mix.draw(rng) for _ in range(4000)])
    assert abs(np.mean(drawn < 10) - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 4000)
    assert set(drawn[drawn < 10]) == set(range(10))
    assert drawn.max() > 900
    assert [part["weight"] for part in mix.describe()["sources"]] == [0.75, 0.25]
    by_size = Mix([Numbers(10), Numbers(30)])
    assert np.allclose(by_size.weights, [0.25, 0.75])


def test_mix_of_unlike_bands_is_refused():
    with pytest.raises(InputError, match=r"\[1, 2\] bands"):
        Mix([Numbers(3), Numbers(3, bands=("g", "r"))])
    assert Mix([Numbers(3, bands=("g", "r")), Numbers(3, bands=("g", "i"))]).bands == ("0", "1")
    for weights in ([1], [1, -1], [0, 0], [1, np.nan]):
        with pytest.raises(InputError, match="weights="):
            Mix([Numbers(3), Numbers(3)], weights)
    with pytest.raises(InputError, match="sources is empty"):
        Mix([])


def test_subset_keeps_names(rng):
    subset = Subset(Numbers(100, objects=10), [7, 17, 50])
    check(subset)
    assert [subset.name(i) for i in range(3)] == ["100: 7", "100: 7", "100: 0"]
    assert subset.describe() == {"kind": "numbers", "images": 3, "objects": 2}
    assert {subset.draw(rng) for _ in range(50)} == {0, 1, 2}
    with pytest.raises(InputError, match="hold no image"):
        Subset(Numbers(3), [])
    with pytest.raises(InputError, match="from 0 to 3"):
        Subset(Numbers(3), [0, 3])


# ---- stamps ------------------------------------------------------------------------------------------------------


def picture(values, suffix="PNG"):
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(values).save(stream, suffix)
    return stream.getvalue()


@pytest.fixture
def archive(tmp_path, rng):
    path = tmp_path / "images.tar"
    stamps = {f"{k}.png": rng.integers(0, 256, (20, 20, 3)).astype(np.uint8) for k in (12, 3, 7)}
    with tarfile.open(path, "w") as tar:
        for name, values in stamps.items():
            content = picture(values)
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        tar.addfile(tarfile.TarInfo("notes.txt"), io.BytesIO())
    return path, stamps


def test_stamps_are_made_linear_by_the_inverse_of_their_stretch(archive):
    path, stamps = archive
    source = check(StampTar(path, size=None))
    assert [source.name(i) for i in range(3)] == ["12", "3", "7"]
    assert source.bands == ("i", "r", "g")
    for i in range(3):
        data = source.load(i).data
        values = np.moveaxis(stamps[f"{source.name(i)}.png"], -1, 0)
        assert np.allclose(GalaxyGAN2017Stretch(clip=False).forward(data) * 255, values, atol=1e-3)
    assert source.load(0).unit is None


def test_stamps_are_resampled_and_may_be_one_band_each(archive, tmp_path, rng):
    path, stamps = archive
    small = check(StampTar(path, size=10))
    values = np.moveaxis(stamps["12.png"], -1, 0).astype(float)
    shrunk = GalaxyGAN2017Stretch().forward(small.load(0).data) * 255
    assert shrunk.shape == (3, 10, 10)
    assert np.allclose(shrunk.mean((1, 2)), values.mean((1, 2)), atol=8)
    each = check(StampTar(path, size=10, bands="each"))
    assert (len(each), each.bands) == (9, ("any",))
    assert np.array_equal(each.load(4).data[0], small.load(1).data[1])
    assert [each.name(i) for i in (2, 3)] == ["12", "3"]
    folder = tmp_path / "stamps"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(picture(np.full((30, 20, 3), 128, np.uint8), "JPEG"))
    flat = check(StampTar(folder, size=16)).load(0).data
    assert np.allclose(flat, GalaxyGAN2017Stretch().inverse(128 / 255), atol=0.02)


def test_archives_that_cannot_be_used_are_named(archive, tmp_path, monkeypatch):
    path, _ = archive
    with pytest.raises(ImageReadError, match="there is no such archive"):
        StampTar(tmp_path / "nothing.tar")
    packed = tmp_path / "images.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(path)
    with pytest.raises(ImageReadError, match="unpack a compressed one"):
        StampTar(packed)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no .jpg"):
        StampTar(tmp_path / "empty")
    content = (tmp_path / "images.tar").read_bytes()[512:1512]
    (tmp_path / "empty" / "a.png").write_bytes(content)
    with pytest.raises(ImageReadError, match="stamp 'a' in"):
        StampTar(tmp_path / "empty").load(0)
    for options, match in (
        ({"size": 0}, "size=0"),
        ({"bands": "r"}, "bands='r'"),
        ({"band_names": "ab"}, "band_names"),
    ):
        with pytest.raises(InputError, match=match):
            StampTar(path, **options)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        StampTar(path)


# ---- FITS --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cubes(tmp_path, rng):
    for k in range(3):
        cube = rng.normal(k, 1, (2, 24, 20)).astype(">f4")
        cube[0, 3, 3] = np.nan
        header = fits.Header({"BUNIT": "nJy", "BAND1": "a", "BAND2": "b"})
        fits.writeto(tmp_path / f"galaxy_{k}.0.fits.gz", cube, header)
    return tmp_path


def test_cubes_are_split_by_object_not_by_band(cubes):
    each = check(FitsFolder(cubes))
    assert (len(each), each.bands) == (6, ("any",))
    assert [each.name(i) for i in range(6)] == [f"galaxy_{k}.0" for k in (0, 0, 1, 1, 2, 2)]
    every = check(FitsFolder(cubes, bands="all"))
    assert (len(every), every.bands) == (3, ("a", "b"))
    assert every.load(1).unit == "nJy"
    for k in range(3):
        assert np.array_equal(every.load(k).data, np.concatenate([each.load(2 * k).data, each.load(2 * k + 1).data]))
    raw = fits.getdata(cubes / "galaxy_1.0.fits.gz")
    assert np.array_equal(each.load(3).data[0], raw[1])
    masked = each.load(2).data[0]
    good = np.isfinite(raw[0])
    assert np.array_equal(masked[good], raw[0][good])
    assert abs(masked[3, 3] - 1) < 3, "filled from what lies around it"


def test_repeat_exposures_in_pairs_share_a_name_and_have_variance(tmp_path, rng):
    for band in "gr":
        hdus = [fits.PrimaryHDU(rng.normal(size=(16, 16)).astype("f4"))]
        hdus += [fits.ImageHDU(np.full((16, 16), 4.0, "f4"))]
        hdus += [fits.ImageHDU(rng.normal(size=(16, 16)).astype("f4")), fits.ImageHDU(np.full((16, 16), 25.0, "f4"))]
        fits.HDUList(hdus).writeto(tmp_path / f"stamp-{band}-1.5-2.fits")
    options = {"hdus": "pairs", "name": r"stamp-[gr]-(.+)\.fits", "pixel_scale": 0.4, "psf_fwhm": 3.0}
    source = check(FitsFolder(tmp_path, one_object_a_file=True, **options))
    assert [source.name(i) for i in range(len(source))] == ["1.5-2"] * 4
    assert [float(source.load(i).variance[0, 2, 2]) for i in range(4)] == pytest.approx([0.25, 0.04, 0.25, 0.04])
    assert (source.load(0).pixel_scale, source.load(0).psf_fwhm, source.load(0).unit) == (0.4, 3.0, None)
    apart = FitsFolder(tmp_path, **options)
    assert {apart.name(i) for i in range(4)} == {"1.5-2 0", "1.5-2 2"}
    with pytest.raises(InputError, match="does not fit the file"):
        FitsFolder(tmp_path, name="galaxy-(.+)")
    for name in ("(", "a", "(a)(b)"):
        with pytest.raises(InputError, match="name="):
            FitsFolder(tmp_path, name=name)


def test_each_hdu_may_be_an_object_and_small_ones_are_left_out(tmp_path, rng):
    sizes = (20, 12, 30)
    hdus = [fits.PrimaryHDU(rng.normal(size=(20, 20)))] + [fits.ImageHDU(rng.normal(size=(n, n))) for n in sizes[1:]]
    fits.HDUList(hdus).writeto(tmp_path / "galaxies.fits")
    source = check(FitsFolder(tmp_path / "galaxies.fits", hdus="each", min_size=16))
    assert [source.name(i) for i in range(2)] == ["galaxies 0", "galaxies 2"]
    assert [source.load(i).data.shape for i in range(2)] == [(1, 20, 20), (1, 30, 30)]
    assert np.array_equal(source.load(1).data[0], hdus[2].data.astype(np.float32))
    with pytest.raises(InputError, match="lower min_size"):
        FitsFolder(tmp_path, hdus="each", min_size=100)
    with pytest.raises(InputError, match="which are no pairs"):
        FitsFolder(tmp_path, hdus="pairs")


def test_files_beyond_the_memory_allowed_are_read_again(cubes, monkeypatch):
    monkeypatch.setattr("astrogan.train.sources.fits._KEPT_BYTES", 2 * 24 * 20 * 4)
    source = check(FitsFolder(cubes))
    assert len(source._kept) == 1


def test_folders_that_cannot_be_used_are_named(cubes):
    with pytest.raises(ImageReadError, match="there is no such folder"):
        FitsFolder(cubes / "nothing")
    with pytest.raises(InputError, match="pattern='x' finds nothing"):
        FitsFolder(cubes, "x")
    fits.writeto(cubes / "one.fits", np.ones((24, 24), "f4"))
    with pytest.raises(InputError, match=r"number of bands \[1, 2\]"):
        FitsFolder(cubes, bands="all")
    for options in ({"bands": "r"}, {"hdus": "all"}, {"min_size": 0}, {"pixel_scale": -1}, {"psf_fwhm": "stars"}):
        with pytest.raises(InputError, match=next(iter(options))):
            FitsFolder(cubes, **options)
    content = (cubes / "one.fits").read_bytes()
    (cubes / "broken.fits").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageReadError, match="broken.fits"):
        FitsFolder(cubes)
    with pytest.raises(ImageReadError, match="broken.fits"):
        FitsFolder(cubes, "broken.fits", hdus="each")


# ---- fields ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def field_files(tmp_path_factory):
    """Two bands of 25 Gaussian sources on a sloping sky, with a masked corner and a hot column."""
    rng = np.random.default_rng(8)
    folder = tmp_path_factory.mktemp("field")
    y, x = np.mgrid[:400, :360]
    centres = [(40 + 72 * k + rng.uniform(-9, 9), 40 + 80 * j + rng.uniform(-9, 9)) for k in range(5) for j in range(5)]
    for band, sigma in (("g", 1.0), ("r", 2.0)):
        image = rng.normal(5, sigma, y.shape) + 0.01 * x
        for cx, cy in centres:
            image += 60 * sigma * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 2.0**2))
        image[:, 200] += 1000
        image[:40, :40] = np.nan
        fits.writeto(folder / f"{band}.fits", image.astype("f4"), fits.Header({"BAND": band}))
    return {band: folder / f"{band}.fits" for band in "gr"}, centres


def test_boxes_hold_the_field_as_it_is(field_files):
    paths, centres = field_files
    options = {"box": 48, "avoid": [(198, 203, 0, 400)], "pixel_scale": 0.2, "psf_fwhm": 4.7, "name": "sky"}
    every = check(Field(paths, bands="all", **options))
    each = check(Field(paths, **options))
    assert every.bands == ("g", "r")
    assert len(each) == 2 * len(every)
    images = np.stack([fits.getdata(path) for path in paths.values()])
    seen = np.zeros(images.shape[1:], int)
    for i in range(len(every)):
        y, x = every._corners[i]
        sample, box = every.load(i), images[:, y : y + 48, x : x + 48]
        good = np.isfinite(box)
        assert good.mean() > 0.97
        assert np.array_equal(sample.data[good], box[good])
        assert np.allclose(sample.variance.mean((1, 2)), [1, 4], rtol=0.35)
        assert not x <= 202 < x + 48
        assert np.array_equal(each.load(2 * i + 1).data[0], sample.data[1])
        assert each.name(2 * i) == each.name(2 * i + 1) == every.name(i)
        seen[y : y + 48, x : x + 48] += 1
    inside = [(cx, cy) for cx, cy in centres if not 170 < cx < 230 and not (cx < 60 and cy < 60)]
    found = [seen[round(cy), round(cx)] > 0 for cx, cy in inside]
    assert np.mean(found) > 0.9
    assert (sample.pixel_scale, sample.psf_fwhm, sample.unit) == (0.2, 4.7, None)


def test_no_pixel_is_on_both_sides_of_a_split(field_files):
    paths, _ = field_files
    source = Field(paths, box=40, name="sky", blank=2.0)
    masks = {}
    for i in range(0, len(source), 2):
        y, x = source._corners[i // 2]
        masks.setdefault(source.name(i), np.zeros((400, 360), bool))[y : y + 40, x : x + 40] = True
    assert len(masks) > 10
    assert np.sum(list(masks.values()), axis=0).max() == 1
    assert len({part_of(name, test=0.3, validation=0.3) for name in masks}) == 3


def test_a_region_shows_nothing_else_and_the_seed_moves_the_boxes(field_files):
    paths, _ = field_files
    part = check(Field(paths["r"], box=48, region=(210, 360, 100, 400), name="sky"))
    image = fits.getdata(paths["r"])[100:400, 210:360]
    for i in range(len(part)):
        y, x = part._corners[i]
        assert np.array_equal(part.load(i).data[0], image[y : y + 48, x : x + 48])
        assert int(part.name(i).split()[1][1:]) >= 210
        assert int(part.name(i).split()[2][1:]) >= 100
    other = Field(paths["r"], box=48, region=(210, 360, 100, 400), seed=1)
    assert not np.array_equal(other._corners, part._corners)


def test_a_field_without_sources_gives_blank_sky(tmp_path, rng):
    fits.writeto(tmp_path / "sky.fits", rng.normal(size=(128, 128)).astype("f4"))
    source = check(Field(tmp_path / "sky.fits", box=32, threshold=20.0))
    assert source.load(0).psf_fwhm is None


def test_fields_that_cannot_be_used_are_named(field_files):
    paths, _ = field_files
    one = paths["g"]
    for options, match in (
        ({"box": 4}, "box=4"),
        ({"box": 500}, "box=500 is larger than the field"),
        ({"cell": 20, "box": 48}, "cell=20"),
        ({"bands": "r"}, "bands='r'"),
        ({"region": (0, 0, 1, 2)}, r"region=\(0, 0, 1, 2\)"),
        ({"avoid": [(0, 1)]}, "avoid="),
        ({"avoid": [(0, 400, 0, 400)]}, "no box of 128 pixels remains"),
        ({"psf_fwhm": "moon"}, "psf_fwhm='moon'"),
        ({"psf_fwhm": [1.0, 2.0]}, "holds 2 numbers; the field has 1"),
        ({"psf_fwhm": -1.0}, "psf_fwhm=-1.0"),
    ):
        with pytest.raises(InputError, match=match):
            Field(one, **options)
    with pytest.raises(InputError, match="is empty"):
        Field([])


# ---- simulation --------------------------------------------------------------------------------------------------


def test_simulated_images_are_a_pure_function_of_seed_and_number():
    source = check(SimulatedStream(seed=4, size=48, length=50))
    first, second = source.load(7), SimulatedStream(seed=4, size=48).load(7)
    assert np.array_equal(first.data, second.data)
    assert first.psf_fwhm == second.psf_fwhm
    assert not np.array_equal(first.data, source.load(8).data)
    assert not np.array_equal(first.data, SimulatedStream(seed=5, size=48).load(7).data)
    assert source.name(7) != SimulatedStream(seed=5).name(7)


def test_simulated_images_have_no_noise_and_the_psf_that_they_say():
    options = {"size": 64, "neighbours": 0, "stars": 0, "radius": (0.3, 0.3), "psf_fwhm": (4.0, 4.0)}
    for i in range(4):
        sample = SimulatedStream(seed=1, **options).load(i)
        image = sample.data[0]
        assert image.min() > -1e-3 * image.max()
        # The galaxy is a point beside the PSF: half its peak is reached at half the FWHM. The area says that best.
        area = (image > 0.5 * image.max()).sum()
        assert 2 * np.sqrt(area / np.pi) == pytest.approx(sample.psf_fwhm, rel=0.2)
        y, x = np.unravel_index(image.argmax(), image.shape)
        assert max(abs(y - 31.5), abs(x - 31.5)) <= 9


def test_simulated_bands_differ_and_arguments_are_checked():
    source = check(SimulatedStream(size=32, bands=3, length=5, stars=30.0))
    assert source.bands == ("0", "1", "2")
    data = source.load(0).data
    assert not np.allclose(data[0], data[2], rtol=1e-3)
    for options in (
        {"seed": -1}, {"size": 4}, {"bands": 0}, {"length": 0}, {"psf_fwhm": (3, 2)}, {"radius": 4},
        {"flux": (0, 1)}, {"neighbours": -1}, {"stars": True},
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"{next(iter(options))}="):
            SimulatedStream(**options)


def test_simulation_needs_galsim(monkeypatch):
    monkeypatch.setitem(sys.modules, "galsim", None)
    with pytest.raises(MissingDependencyError, match="pip install 'astrogan\\[sim\\]'"):
        SimulatedStream()


# ---- recipes -----------------------------------------------------------------------------------------------------


def test_tables_of_a_recipe_open_what_they_say(archive, cubes):
    path, _ = archive
    stamps = {"kind": "stamps", "path": path.name, "size": 16, "bands": "each", "weight": 2}
    simulated = {"kind": "simulated", "size": 32, "length": 10, "weight": 6}
    before = dict(stamps)
    mix = open_sources([stamps, simulated], path.parent)
    assert isinstance(mix, Mix)
    assert np.allclose(mix.weights, [0.25, 0.75])
    assert stamps == before
    assert isinstance(open_sources([{"kind": "fits", "path": str(cubes)}], "/nowhere"), FitsFolder)
    assert np.allclose(open_sources([{**stamps}, {**stamps, "weight": 1}], path.parent).weights, [2 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"kind": "pictures"}, "kind='pictures' is unknown; use one of 'stamps'"),
        ({"path": "a"}, "kind=None is unknown"),
        ({"kind": "simulated", "sizes": 3}, "'sizes' of kind='simulated' is unknown; it takes seed, size"),
        ({"kind": "stamps"}, "has no 'path'"),
        ({"kind": "stamps", "path": 3}, "path=3 must be a path"),
        ("stamps", "must be a table"),
    ],
)
def test_tables_that_say_nothing_useful_are_named(spec, match):
    with pytest.raises(InputError, match=match):
        open_source(spec)


def test_missing_data_are_named_with_the_remedy(tmp_path):
    with pytest.raises(ImageReadError, match="'kids/r.fits': there is no .*--data"):
        open_source({"kind": "field", "paths": {"r": "kids/r.fits"}}, tmp_path)
    simulated = {"kind": "simulated"}
    with pytest.raises(InputError, match="only 1 of 2 tables have a 'weight'"):
        open_sources([simulated, {**simulated, "weight": 1}])
    for specs in ([], simulated):
        with pytest.raises(InputError, match="must be a list of tables"):
            open_sources(specs)


@pytest.mark.data
def test_real_stamps(data_dir):
    source = check(open_source({"kind": "stamps", "path": "galaxyzoo_kaggle/images.tar", "size": 256}, data_dir))
    assert (len(source), source.name(0)) == (3738, "100018")
    data = source.load(0).data
    assert data.shape == (3, 256, 256)
    assert -0.11 < data.min() < 0.1 < data.max() < 4.1


@pytest.mark.data
@pytest.mark.parametrize("number", range(6))
def test_real_linear_data(data_dir, number):
    spec = tomllib.loads(LINEAR)["data"][number]
    if spec["kind"] == "field":  # a part of it, in one band: the whole takes long
        spec = spec | {"paths": {"r": spec["paths"]["r"]}, "region": [300, 1100, 0, 800], "psf_fwhm": 2.5}
    source = check(open_source(spec, data_dir))
    about = source.describe()
    expected = {0: (630, 90), 2: (62, 62), 3: (10, 5), 4: (None, 28), 5: (100_000, 100_000)}
    if number in expected:
        images, objects = expected[number]
        assert about["objects"] == objects
        assert images in (None, about["images"])
    scales = {0: 0.03, 1: 0.34, 2: 0.03, 3: 0.03, 4: 0.396, 5: None}
    assert source.load(0).pixel_scale == pytest.approx(scales[number], rel=1e-3)
    assert (source.load(0).variance is not None) == (number in (1, 4))
