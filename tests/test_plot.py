"""Figures: what is drawn is what the image holds, every scale has its unit, and nothing runs into anything."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData, NDData, StdDevUncertainty
from astropy.table import Table
from astropy.wcs import WCS

pytest.importorskip("matplotlib")

from matplotlib import colormaps
from matplotlib.figure import Figure

from astrogan import Deblender, Restorer, write_image
from astrogan.exceptions import InputError, MissingDependencyError, UnitError
from astrogan.plot import compare, plot_ablation, plot_grid, plot_image, plot_sources, rgb

SHAPE = (30, 40)
GREY = round(255 * 0.62)


def sky(scale=0.4, angle=0.0, shape=SHAPE, kinds=("RA---TAN", "DEC--TAN")):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = kinds, (150.1, 2.2)
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = scale / 3600 * np.array([[-cos, sin], [sin, cos]])
    wcs.wcs.set()
    return wcs


def galaxy(*, shape=SHAPE, scale=0.4, angle=0.0, unit="nmgy", factor=1.0, sigma=True, seed=0, masked=False, **options):
    y, x = np.mgrid[: shape[0], : shape[1]]
    radius = np.hypot(y - shape[0] / 2, x - shape[1] / 2) * scale
    data = (40 * np.exp(-radius / 1.5) + np.random.default_rng(seed).normal(size=shape)) * factor
    mask = (x == 5) | ((x == 20) & (y == 12)) if masked else None
    uncertainty = StdDevUncertainty(np.full(shape, factor)) if sigma else None
    return CCDData(data, unit=unit, wcs=sky(scale, angle, shape, **options), uncertainty=uncertainty, mask=mask)


def bands(names="gri", **options):
    return {name: galaxy(seed=k, factor=1 + 0.3 * k, **options) for k, name in enumerate(names)}


def grid_table(rows=("identity", "wiener", "nafnet"), fwhms=(1.4, 1.8), noises=(1.0, 2.0, 5.0)):
    lines = [(r, f, n, 34 - 2 * f - n + k) for k, r in enumerate(rows) for f in fwhms for n in noises]
    table = Table(rows=lines, names=("row", "fwhm", "noise", "psnr"))
    table["fwhm"].unit, table["psnr"].unit = "arcsec", "dB"
    return table


def ablation_table():
    table = Table({"row": ["full model", "without the PSF", "pays $5 a_b$"], "psnr": [31.2, 30.4, np.nan]})
    table["psnr_low"], table["psnr_high"] = [31.0, 30.1, np.nan], [31.4, 30.6, np.nan]
    table["flux_error"], table["oddity"] = [0.01, 0.02, 0.03], [1e-6, 2e-6, 3e-6]
    table["psnr"].unit = "dB"
    return table


@pytest.fixture(scope="module")
def deblended():
    y, x = np.mgrid[:48, :60]
    clean = sum(
        f * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 8) for f, a, b in ((90, 20, 22), (60, 28, 22), (40, 45, 35))
    )
    data = np.stack([clean, 1.5 * clean]) + np.random.default_rng(1).normal(size=(2, 48, 60))
    mask = np.zeros(data.shape, bool)
    mask[:, :, 3] = True
    uncertainty = StdDevUncertainty(np.ones(data.shape))
    pair = {
        name: CCDData(plane, unit="nJy", wcs=sky(shape=(48, 60)), mask=mask[0], uncertainty=StdDevUncertainty(sigma))
        for name, plane, sigma in zip("gr", data, uncertainty.array, strict=True)
    }
    return Deblender("watershed", threshold=3.0)(pair, [(20, 22), (28, 22), (45, 35)])


def pixels(figure):
    """What the figure looks like, (y, x, 4), the lowest row first."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[::-1]


def colour_at(figure, ax, x, y):
    """Colour at a pixel of the image in a panel."""
    column, row = ax.transData.transform((x, y)).astype(int)
    return pixels(figure)[row, column, :3]


def bars(figure):
    return [child for ax in figure.axes for child in ax.child_axes]


def check_legible(figure):
    """Panels with all their labels lie in the figure, apart from each other; ticks of colour bars do too."""
    figure.set_dpi(60)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    boxes = [ax.get_tightbbox(renderer) for ax in figure.axes]
    width, height = figure.canvas.get_width_height()
    for ax, box in zip(figure.axes, boxes, strict=True):
        assert ax.has_data() or ax.images, "an empty panel"
        assert box.x0 > -1 and box.y0 > -1, box  # noqa: PT018
        assert box.x1 < width + 1 and box.y1 < height + 1, (box, width, height)  # noqa: PT018
    for a, b in itertools.combinations(boxes, 2):
        assert min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1, (a, b)
    for bar in bars(figure):
        texts = [t.get_window_extent(renderer) for t in bar.get_yticklabels() if t.get_text()]
        assert len(texts) > 1
        low, high = bar.get_window_extent(renderer).get_points()[:, 1]
        shown = sorted((t.y0, t.y1) for t in texts if low - 1 <= (t.y0 + t.y1) / 2 <= high + 1)
        assert all(a[1] <= b[0] + 1 for a, b in itertools.pairwise(shown)), [
            t.get_text() for t in bar.get_yticklabels()
        ]


ALL = {
    "image": lambda _: plot_image(galaxy(masked=True), title="a galaxy"),
    "turned": lambda _: plot_image(galaxy(angle=35)),
    "sideways": lambda _: plot_image(galaxy(angle=90)),
    "galactic": lambda _: plot_image(galaxy(kinds=("GLON-CAR", "GLAT-CAR"))),
    "cgs": lambda _: plot_image(galaxy(unit="erg / (s cm2 Angstrom)", factor=1e-19), stretch="linear"),
    "large": lambda _: plot_image(galaxy(unit="adu", factor=3e6), stretch="sqrt"),
    "bands": lambda _: plot_image(bands("ugriz")),
    "arrays": lambda _: plot_image([np.eye(12), np.ones((12, 12))], label="a number"),
    "strip": lambda _: plot_image(np.arange(600.0).reshape(4, 150), stretch="linear"),
    "tower": lambda _: compare(np.arange(600.0).reshape(150, 4), np.zeros((150, 4))),
    "compare": lambda _: compare(bands("gr", masked=True), bands("gr", masked=True), titles=("observed", "restored")),
    "truth": lambda _: compare(galaxy(sigma=False), galaxy(seed=1), truth=galaxy(seed=2)),
    "translation": lambda _: compare(galaxy(), galaxy(shape=(60, 80), scale=0.2, factor=0.25)),
    "rgb": lambda _: rgb(bands(masked=True)),
    "sources": lambda result: plot_sources(result),
    "grid": lambda _: plot_grid(grid_table()),
    "many": lambda _: plot_grid(grid_table(tuple("abcdef"), (1.4,), (1.0, 2.0)), relative_to="a"),
    "ablation": lambda _: plot_ablation(ablation_table()),
}


@pytest.mark.parametrize("kind", ALL)
def test_nothing_overlaps_and_no_panel_is_empty(kind, deblended):
    check_legible(ALL[kind](deblended))


@pytest.mark.parametrize("kind", ["truth", "rgb", "ablation"])
def test_the_same_image_gives_the_same_pixels(kind, deblended):
    first, second = (ALL[kind](deblended) for _ in range(2))
    np.testing.assert_array_equal(pixels(first), pixels(second))


def test_pyplot_and_matplotlib_are_left_alone():
    code = (
        "import sys, numpy as np, astrogan.plot as p\n"
        "assert 'matplotlib' not in sys.modules\n"
        "p.plot_image(np.eye(9)).canvas.draw()\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=120, env=os.environ | {"ASTROGAN_DISABLE_PLUGINS": "1"}
    )


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    for draw in (lambda: plot_image(np.eye(9)), lambda: rgb(bands()), lambda: plot_grid(grid_table())):
        with pytest.raises(MissingDependencyError, match=r"pip install 'astrogan\[plot\]'"):
            draw()


# ---- one image ------------------------------------------------------------------------------------------------------


def test_colours_are_those_of_the_values_and_masks_are_grey():
    image = galaxy(masked=True)
    image.data[3, 30] = np.nan
    before = image.data.copy()
    figure = plot_image(image, limits=(-3, 40))
    (ax,) = figure.axes
    shown = ax.images[0]
    for x, y in ((5, 8), (20, 12), (30, 3)):
        np.testing.assert_array_equal(colour_at(figure, ax, x, y), GREY)
    for x, y in ((20, 15), (2, 2), (38, 28)):
        expected = 255 * np.array(colormaps["inferno"](float(shown.norm(image.data[y, x])[0])))[:3]
        np.testing.assert_allclose(colour_at(figure, ax, x, y), expected, atol=1.5)
    assert ax.get_title(loc="right") == "grey: masked"
    assert (shown.norm.vmin, shown.norm.vmax) == (-3, 40)
    np.testing.assert_array_equal(image.data, before)
    assert image.uncertainty.parent_nddata is image


def test_no_note_on_masks_where_nothing_is_masked():
    assert plot_image(galaxy()).axes[0].get_title(loc="right") == ""


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("nmgy", r"flux per pixel [$\mathrm{nmgy}$]"),
        ("MJy/sr", r"surface brightness [$\mathrm{MJy\,sr^{-1}}$]"),
        ("", "pixel value (dimensionless)"),
    ],
)
def test_colour_bar_says_quantity_and_unit(unit, text):
    (bar,) = bars(plot_image(galaxy(unit=unit)))
    assert bar.get_ylabel().replace("\n", " ") == text


def test_colour_bar_takes_a_power_of_ten_out():
    (bar,) = bars(plot_image(galaxy(unit="Jy", factor=1e-9), limits=(0, 4e-8), stretch="linear"))
    assert r"[$10^{-8}$ $\mathrm{Jy}$]" in bar.get_ylabel()
    assert [t.get_text() for t in bar.get_yticklabels()] == ["0", "1", "2", "3", "4"]


def test_colour_bar_points_where_values_are_beyond():
    image = np.linspace(0, 10, 100).reshape(10, 10)
    extent = {}
    for limits in ((0, 10), (0, 5), (2, 8)):
        figure = plot_image(image, limits=limits, stretch="linear")
        extent[limits] = len([p for p in bars(figure)[0].patches if p.get_visible()])
    assert extent[0, 10] < extent[0, 5] < extent[2, 8]


def test_sky_coordinates_where_there_is_a_wcs():
    ax = plot_image(galaxy()).axes[0]
    assert [c.get_axislabel() for c in ax.coords] == ["RA (ICRS)", "Dec"]
    ax = plot_image(galaxy(kinds=("GLON-CAR", "GLAT-CAR"))).axes[0]
    assert [c.get_axislabel() for c in ax.coords] == ["Galactic l", "Galactic b"]
    turned = plot_image(galaxy(angle=90)).axes[0]
    assert [c.get_axislabel_position() for c in turned.coords] == [["l"], ["b"]]
    flat = plot_image(NDData(np.eye(8))).axes[0]
    assert (flat.get_xlabel(), flat.get_ylabel()) == ("x [pixel]", "y [pixel]")


def test_every_form_of_an_image_is_drawn(tmp_path):
    write_image(galaxy(), tmp_path / "image.fits")
    planes = bands()
    cube = CCDData(np.stack([plane.data for plane in planes.values()]), unit="nmgy", meta={"AGBANDS": "g,r,i"})
    for image, titles in (
        (tmp_path / "image.fits", [""]),
        (planes, ["g", "r", "i"]),
        (list(planes.values()), ["0", "1", "2"]),
        (cube, ["g", "r", "i"]),
        (cube.data, ["0", "1", "2"]),
        (cube.data * u.Jy, ["0", "1", "2"]),
    ):
        assert [ax.get_title(loc="left") for ax in plot_image(image).axes] == titles
    assert len(plot_image(planes, band="r").axes) == 1
    np.testing.assert_allclose(plot_image(planes, band=-1).axes[0].images[0].get_array(), planes["i"].data, rtol=1e-6)


def test_names_from_files_are_no_formulas():
    figure = plot_image({"$x_1": galaxy(), "a_b^$": galaxy()})
    check_legible(figure)
    assert figure.axes[0].get_title(loc="left") == r"\$x_1"


def test_limits_may_have_a_unit():
    norm = plot_image(galaxy(unit="Jy"), limits=[0, 500] * u.mJy).axes[0].images[0].norm
    assert (norm.vmin, norm.vmax) == (0, 0.5)


def test_a_figure_or_axes_of_ones_own():
    own = Figure(figsize=(8, 6))
    half = own.subfigures(1, 2)[1]
    assert plot_image(galaxy(), fig=own) is own
    assert plot_image(np.eye(9), fig=Figure(figsize=(8, 6)).subfigures(1, 1)) is not own
    with pytest.raises(InputError, match=r"fig is 4.0 x 6.0 inches; .* at least 4.7 x"):
        plot_image(galaxy(), fig=half)
    figure = Figure()
    axes = figure.subplots(1, 4)
    assert compare(galaxy(), galaxy(), axes=axes) is figure
    assert [len(ax.images) for ax in axes] == [1, 1, 1, 1]
    with pytest.raises(InputError, match="axes has 2 axes; this figure has 4 panels"):
        compare(galaxy(), galaxy(), axes=axes[:2])
    with pytest.raises(InputError, match="fig and axes are both given"):
        plot_image(galaxy(), fig=figure, axes=axes[0])
    with pytest.raises(InputError, match="it must hold matplotlib axes"):
        plot_image(galaxy(), axes=["left"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"band": "z"}, "band='z' is no band of the image; it has g, r, i"),
        ({"band": 3}, "band=3 is no band"),
        ({"stretch": "cubic"}, "stretch='cubic' must be one of asinh"),
        ({"limits": (3, 1)}, r"limits=\(3, 1\) must be two finite numbers"),
        ({"limits": 5}, "limits=5 must be two numbers"),
        ({"cmap": "no such map"}, "cmap='no such map' is no colour map"),
        ({"fig": "large"}, "fig is str"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        plot_image(bands(), **options)


def test_bad_images():
    with pytest.raises(UnitError, match="do not convert to the image's unit"):
        plot_image(galaxy(), limits=[0, 1] * u.m)
    with pytest.raises(InputError, match="no valid pixel in band '0'"):
        plot_image(np.full((5, 5), np.nan))
    with pytest.raises(InputError, match="image is int; it must be a path, CCDData"):
        plot_image(7)
    with pytest.raises(InputError, match="after: image has shape"):
        compare(np.eye(5), np.ones(5))


# ---- before and after -----------------------------------------------------------------------------------------------


def headings(figure):
    return [ax.get_title(loc="left") for ax in figure.axes]


def test_panels_share_a_scale_and_the_residual_is_in_sigma():
    before, after = galaxy(masked=True, factor=2.0), galaxy(masked=True, factor=2.0, seed=5)
    figure = compare(before, after, titles=("observed", "restored"))
    assert headings(figure) == ["observed", "restored", "residual", "uncertainty"]
    first, second, residual, sigma = (ax.images[0] for ax in figure.axes)
    assert first.norm is second.norm
    np.testing.assert_allclose(residual.get_array(), np.where(before.mask, np.nan, (after.data - before.data) / 2),
                               rtol=1e-5, atol=1e-5)  # fmt: skip
    np.testing.assert_allclose(sigma.get_array()[~before.mask], 2.0)
    assert residual.norm.vmin == -residual.norm.vmax
    assert 3 <= residual.norm.vmax <= 10
    labels = [bar.get_ylabel().replace("\n", " ") for bar in bars(figure)]
    assert labels == [
        r"flux per pixel [$\mathrm{nmgy}$]",
        "(restored − observed) / σ of observed",
        r"1 sigma [$\mathrm{nmgy}$]",
    ]


def test_residual_without_uncertainty_has_the_unit():
    figure = compare(galaxy(sigma=False), galaxy(sigma=False, seed=1))
    assert headings(figure) == ["before", "after", "residual"]
    assert bars(figure)[1].get_ylabel().replace("\n", " ") == r"after − before [$\mathrm{nmgy}$]"


def test_truth_gets_a_panel_and_the_residual_refers_to_it():
    before, after, truth = galaxy(), galaxy(seed=1, factor=2), galaxy(seed=2)
    figure = compare(before, after, truth=truth)
    assert headings(figure) == ["before", "after", "truth", "residual", "uncertainty"]
    np.testing.assert_allclose(
        figure.axes[3].images[0].get_array(), (after.data - truth.data) / 2, rtol=1e-5, atol=1e-5
    )


def test_units_are_brought_together():
    before, after = galaxy(unit="Jy"), galaxy(unit="mJy", factor=1000.0)
    np.testing.assert_allclose(compare(before, after).axes[2].images[0].get_array(), 0, atol=1e-4)
    with pytest.raises(UnitError, match="after has unit adu, which does not convert to Jy"):
        compare(before, galaxy(unit="adu"))


def test_bands_are_matched_by_name():
    images = bands("gr")
    figure = compare(images, {"r": images["r"], "g": images["g"]})
    for ax in (figure.axes[2], figure.axes[6]):
        np.testing.assert_allclose(ax.images[0].get_array(), 0, atol=1e-6)
    with pytest.raises(InputError, match="after has 3 bands"):
        compare(images, bands("gri"))


def test_different_grids_are_compared_per_area():
    figure = compare(galaxy(), galaxy(shape=(60, 80), scale=0.2, factor=0.25), band=0)
    assert headings(figure) == ["before", "after", "uncertainty"]
    first, second = (ax.images[0].get_array() for ax in figure.axes[:2])
    assert first.max() / second.max() == pytest.approx(1, abs=0.15)
    assert bars(figure)[0].get_ylabel().replace("\n", " ") == r"surface brightness [$\mathrm{nmgy\,arcsec^{-2}}$]"
    with pytest.raises(InputError, match="the truth must be on the grid of after"):
        compare(galaxy(), galaxy(shape=(60, 80), scale=0.2), truth=galaxy())


def test_diagnostics_give_the_residual():
    observed = bands("gr", masked=True)
    restored = bands("gr", masked=True)
    report = Restorer("identity", psf=2.5).diagnose(observed, restored)
    for band, k in ((None, 0), ("r", 1), (1, 1)):
        shown = compare(observed, restored, diagnostics=report, band=band).axes[2]
        hidden = observed["gr"[k]].mask
        np.testing.assert_allclose(shown.images[0].get_array()[~hidden], report.residual[k][~hidden], rtol=1e-6)
        assert np.ma.getmaskarray(shown.images[0].get_array())[hidden].all()
    assert "PSF ∗ after" in bars(compare(observed, restored, diagnostics=report))[1].get_ylabel()
    with pytest.raises(InputError, match=r"diagnostics has a residual of shape \(2, 30, 40\)"):
        compare(np.eye(9), np.eye(9), diagnostics=report)
    with pytest.raises(InputError, match="diagnostics is str"):
        compare(observed, restored, diagnostics="good")


def test_bad_titles_and_limits():
    with pytest.raises(InputError, match="titles='ab' must be two"):
        compare(galaxy(), galaxy(), titles="ab")
    with pytest.raises(InputError, match="residual_limit=-1 must be a positive number"):
        compare(galaxy(), galaxy(), residual_limit=-1)


# ---- colour ---------------------------------------------------------------------------------------------------------


def test_bands_are_the_colours_that_they_are_named_for():
    y, x = np.mgrid[:30, :40]
    planes = {}
    for k, name in enumerate("gri"):
        spot = 500 * np.exp(-((x - 8 - 12 * k) ** 2 + (y - 15) ** 2) / 6)
        planes[name] = CCDData(spot + np.random.default_rng(k).normal(size=spot.shape), unit="adu")
    figure = rgb(planes, ("i", "r", "g"), scale=(1, 1, 1))
    (ax,) = figure.axes
    picture = ax.images[0].get_array()
    for k, channel in enumerate((2, 1, 0)):
        assert picture[15, 8 + 12 * k].argmax() == channel
    assert picture[2, 2].max() < 80
    assert ax.get_title(loc="left") == "red i, green r, blue g"
    np.testing.assert_array_equal(picture, rgb(planes, scale=(1, 1, 1)).axes[0].images[0].get_array())
    np.testing.assert_array_equal(picture, rgb(planes, "irg", scale=(1, 1, 1)).axes[0].images[0].get_array())


def test_usual_colour_is_white_and_masked_is_grey():
    noise = np.random.default_rng(0).normal(size=(3, *SHAPE))
    light = galaxy(sigma=False).data.clip(0) * 30
    mask = np.zeros(SHAPE, bool)
    mask[4] = True
    image = {n: CCDData(f * light + noise[k], unit="adu", mask=mask if n == "b" else None)
             for k, (n, f) in enumerate((("a", 1), ("b", 3), ("c", 0.5)))}  # fmt: skip
    picture = rgb(image).axes[0].images[0].get_array().astype(int)
    np.testing.assert_array_equal(picture[4], GREY)
    middle = picture[13:18, 18:23]
    assert np.ptp(middle, axis=-1).max() < 12
    assert middle.max() > 140


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": ("g", "r", "z")}, "bands='z' is no band"),
        ({"bands": ("g", "r")}, "must be three bands of g, r, i"),
        ({"bands": "g"}, "must be three bands"),
        ({"scale": (1, 1, 0)}, "must be three positive numbers"),
        ({"stretch": -1}, "stretch=-1 must be a positive number"),
        ({"minimum": np.nan}, "minimum=nan must be a finite number"),
        ({"Q": "8"}, "Q='8' must be a positive number"),
    ],
)
def test_bad_colours(options, message):
    with pytest.raises(InputError, match=message):
        rgb(bands(), **options)


def test_colours_of_other_than_three_bands_have_to_be_named():
    with pytest.raises(InputError, match="image has bands g, r; name three in bands="):
        rgb(bands("gr"))
    assert rgb(bands("griz"), ("z", "r", "g")).axes


# ---- sources --------------------------------------------------------------------------------------------------------


def test_sources_are_shown_in_order_of_flux(deblended):
    figure = plot_sources(deblended, band="g")
    assert headings(figure)[:4] == ["image", "models", "image − models", "3 segments"]
    assert headings(figure)[4:] == ["source 1", "model", "source 2", "model", "source 3", "model"]
    image = deblended.recompose()
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown[:, 5:], image.data[0][:, 5:], rtol=1e-5)
    assert np.ma.getmaskarray(shown)[:, 3].all()
    models = sum(_placed(deblended, k) for k in range(3))
    np.testing.assert_allclose(figure.axes[2].images[0].get_array()[:, 5:], (image.data[0] - models)[:, 5:],
                               rtol=1e-4, atol=1e-3)  # fmt: skip
    np.testing.assert_allclose(figure.axes[4].images[0].get_array().filled(0).max(), deblended.sources[0].data[0].max())
    assert bars(figure)[0].get_ylabel().replace("\n", " ") == r"g: flux per pixel [$\mathrm{nJy}$]"
    assert [t.get_text() for t in figure.axes[0].texts] == ["1", "2", "3"]


def _placed(result, k):
    total = np.zeros(result.residual.shape[-2:])
    y, x = (int(result.catalog[f"bbox_{axis}min"][k]) for axis in "yx")
    model = result.models[k].data[0]
    total[y : y + model.shape[0], x : x + model.shape[1]] = model
    return total


def test_segments_have_colours_of_their_own(deblended):
    shown = plot_sources(deblended, sources=0).axes[3].images[0].get_array()
    colours = {number: {tuple(c) for c in shown[deblended.segmentation == number]} for number in range(4)}
    assert all(len(found) == 1 for found in colours.values())
    assert len(set().union(*colours.values())) == 4
    assert colours[0] == {(1.0, 1.0, 1.0)}


def test_sources_can_be_chosen(deblended):
    assert headings(plot_sources(deblended, sources=[3]))[4:] == ["source 3", "model"]
    assert len(plot_sources(deblended, sources=2).axes) == 8
    assert len(plot_sources(deblended, sources=0).axes) == 4
    for sources, message in (([9], "the catalog has no id 9"), ("all", "must be a number of sources"), (-1, "must be")):
        with pytest.raises(InputError, match=message):
            plot_sources(deblended, sources=sources)
    with pytest.raises(InputError, match="result is CCDData; give the DeblendResult"):
        plot_sources(galaxy())


def test_a_field_without_sources_is_drawn():
    noise = CCDData(np.random.default_rng(0).normal(size=(40, 40)), unit="adu")
    figure = plot_sources(Deblender("watershed", threshold=20)(noise))
    assert headings(figure) == ["image", "models", "image − models", "0 segments"]
    check_legible(figure)


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_grid_holds_the_numbers_of_the_table():
    figure = plot_grid(grid_table())
    assert headings(figure) == ["identity", "wiener", "nafnet"]
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), [[31.2, 30.2, 27.2], [30.4, 29.4, 26.4]])
    assert [t.get_text() for t in figure.axes[1].texts] == ["31.2", "30.2", "27.2", "30.4", "29.4", "26.4"]
    assert figure.axes[0].get_ylabel().startswith("FWHM [")
    assert figure.axes[0].get_xlabel() == "noise / original noise"
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["1", "2", "5"]
    assert bars(figure)[0].get_ylabel() == r"PSNR [$\mathrm{dB}$]"
    assert len({ax.images[0].norm for ax in figure.axes}) == 1


def test_grid_of_differences_and_of_missing_cells():
    table = grid_table()
    table = table[~((table["row"] == "nafnet") & (table["noise"] == 5.0))]
    figure = plot_grid(table, relative_to="identity")
    assert headings(figure) == ["wiener", "nafnet"]
    assert {t.get_text() for t in figure.axes[1].texts} == {"+2.0"}
    assert len(figure.axes[1].texts) == 4
    np.testing.assert_array_equal(colour_at(figure, figure.axes[1], 2, 0), GREY)
    assert "− that of identity" in bars(figure)[0].get_ylabel().replace("\n", " ")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t, {"value": "ssim"}, "value='ssim' is no column of the table; it has row, fwhm, noise, psnr"),
        (lambda t: t, {"methods": ["none"]}, "'none' is no method of the table; it has identity, wiener, nafnet"),
        (lambda t: Table(np.concatenate([t, t])), {}, "several lines with row='identity', fwhm 1.4 and noise 1"),
        (lambda t: t[:0], {}, "table has no lines"),
        (lambda t: {"psnr": 1}, {}, "table is dict; it must be an astropy Table"),
        (lambda t: t, {"value": "row"}, "column 'row' of the table is not of numbers"),
    ],
)
def test_bad_grids(change, options, message):
    with pytest.raises(InputError, match=message):
        plot_grid(change(grid_table()), **options)


def test_ablation_has_a_panel_a_measure_and_a_point_a_row():
    figure = plot_ablation(ablation_table(), better={"oddity": "lower"})
    assert [ax.get_xlabel() for ax in figure.axes] == [
        r"PSNR [$\mathrm{dB}$]  (higher is better)",
        "flux error  (lower is better)",
        "oddity [$10^{-6}$]  (lower is better)",
    ]
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert names == ["full model", "without the PSF", r"pays \$5 a_b\$"]
    points = figure.axes[0].containers[0].lines[0]
    np.testing.assert_allclose(points.get_xdata(), [31.2, 30.4, np.nan])
    (segments,) = figure.axes[0].containers[0].lines[2]
    np.testing.assert_allclose(segments.get_segments()[1][:, 0], [30.1, 30.6])
    reference = plot_ablation(ablation_table(), reference="without the PSF", metrics="psnr").axes[0].lines[0]
    assert reference.get_xdata()[0] == 30.4


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t, {"metrics": ["none"]}, "'none' is no column"),
        (lambda t: t, {"metrics": []}, "metrics=.* is empty"),
        (lambda t: t, {"reference": "none"}, "'none' is no method of the table"),
        (lambda t: Table(np.concatenate([t, t])), {}, "table has 2 lines with row='full model'"),
        (lambda t: t, {"better": {"psnr": "up"}}, "must be a dict of measure: 'higher' or 'lower'"),
        (lambda t: t[["row"]], {}, "table has no column of numbers"),
    ],
)
def test_bad_ablations(change, options, message):
    with pytest.raises(InputError, match=message):
        plot_ablation(change(ablation_table()), **options)
