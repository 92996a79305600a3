"""
From one survey to another
==========================

The same galaxies as SDSS and as CFHTLS would see them, each image translated to the other survey. One way is
arithmetic, the other is a guess with a prior. How near does each come, in the radial distribution of light and in
Fourier space, and is the noise that is added the survey's?
"""

# %%
# Two surveys, one galaxy
# -----------------------
# `~astrogan.simulate.surveys.simulate_pair` draws a galaxy through each survey's seeing, pixels and noise, on the same
# place of the sky. CFHTLS has half the seeing of SDSS, a fifth of the area per pixel, and twenty times less noise. Here
# both have the same filters, so that what differs is the instrument.

import os
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from astropy.table import Table
from astropy.visualization import AsinhStretch, ImageNormalize

from astrogan import Translator
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.backends.classic.white_noise import WhiteNoise
from astrogan.exceptions import AstroganWarning
from astrogan.metrics import (
    compare_fourier_maps,
    noise_autocorrelation,
    noise_std,
    radial_flux_fractions,
    stacked_fourier_map,
)
from astrogan.operators.translator import TargetSpec
from astrogan.simulate.surveys import get_survey, simulate_pair, simulate_stamp

warnings.simplefilter("ignore", AstroganWarning)  # that a target is sharper than the image is the subject here
BANDS = ("g", "r", "i")
R = BANDS.index("r")
pairs = [simulate_pair(seed, "sdss", "cfhtls", bands=BANDS, colour_terms=False) for seed in range(900, 916)]
shown = pairs[13]  # a bright spiral
for stamp in (shown.first, shown.second):
    print(stamp.survey, stamp.data.shape, stamp.pixel_scale, "arcsec a pixel, FWHM", np.round(stamp.fwhm, 2), "arcsec")

# %%
# Translate both ways
# -------------------
# A target can be any survey's name, or be said exactly: here the very grid, PSF and noise of the stamp that the other
# survey has, so that the results can be compared with it. ``psf-matching`` broadens where it can and only resamples
# where the target is sharper; ``surveynet``, the default, has a network for that.


def target_of(stamp, noise_model=None):
    """What a translation to the survey of a stamp is to look like."""
    survey = get_survey(stamp.survey)
    noise = {
        "noise": list(stamp.sigma),
        "noise_slope": [1 / survey[band].electrons_per_nanomaggy for band in stamp.bands],  # photons of the sources
        "noise_model": noise_model,
    }
    grid = {"wcs": stamp.wcs, "shape": stamp.data.shape[1:], "psf": list(stamp.psf), "name": stamp.survey}
    return TargetSpec(**grid, **(noise if noise_model is not None else {}))


def translated(backend, source, wanted, noise_model=None, **options):
    """The data of a stamp as another survey would have them; without noise unless there is a model of it."""
    translate = Translator(backend, target=target_of(wanted, noise_model), psf=list(source.psf), **options)
    return np.stack([band.data for band in translate(source.to_ccd(), rng=1)])


down = {
    "psf-matching": translated("psf-matching", shown.second, shown.first),
    "with noise": translated("psf-matching", shown.second, shown.first, CorrelatedNoise()),
}
resampled = translated("psf-matching", shown.second, shown.first, match=False)
up = {name: translated(name, shown.first, shown.second) for name in ("psf-matching", "surveynet")}

# %%
# Surface brightness in r, on one scale. Right: what remains against the noise-free truth, in units of the noise
# of SDSS. Downwards nothing does, if the PSF is matched; pixels alone are not enough. Upwards resampling leaves
# a hole with a ring, the light that the seeing of SDSS has taken out of the middle, and the noise of SDSS. The network
# takes back what it can of both.


def per_area(data, stamp):
    """Of the r band, per square arcsec and over the peak of CFHTLS."""
    return data[R] / stamp.pixel_scale**2 / (shown.second.truth[R].max() / shown.second.pixel_scale**2)


noise = shown.first.sigma[R] / shown.first.pixel_scale**2
norm = ImageNormalize(vmin=-0.03, vmax=1, stretch=AsinhStretch(0.03))
rows = [
    (shown.second, shown.first, down, {"resampled": resampled, "psf-matching": down["psf-matching"]}),
    (shown.first, shown.second, up, up),
]
figure, axes = plt.subplots(2, 6, figsize=(12.5, 4.6), layout="constrained")
for line, (source, wanted, results, compared) in zip(axes, rows, strict=True):
    panels = [(f"{source.survey.upper()}, observed", source.data, source)]
    panels += [(f"to {wanted.survey.upper()}: {name}", data, wanted) for name, data in results.items()]
    panels += [(f"{wanted.survey.upper()}, observed", wanted.data, wanted)]
    for axis, (title, data, stamp) in zip(line[:4], panels, strict=True):
        flux = axis.imshow(per_area(data, stamp), origin="lower", norm=norm)
        axis.set_title(title, fontsize=9)
    for axis, (name, data) in zip(line[4:], compared.items(), strict=True):
        left = axis.imshow(
            (data - wanted.truth)[R] / wanted.pixel_scale**2 / noise, origin="lower", vmin=-5, vmax=5, cmap="RdBu_r"
        )
        axis.set_title(f"{name} $-$ truth", fontsize=9)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
figure.colorbar(
    flux,
    ax=axes[:, :4],
    orientation="horizontal",
    label="r surface brightness / peak of CFHTLS",
    ticks=[0, 0.03, 0.1, 0.3, 1],
    format="%g",
    shrink=0.6,
    aspect=40,
)
figure.colorbar(
    left, ax=axes[:, 4:], orientation="horizontal", label="(result $-$ truth) / noise of an SDSS pixel", aspect=20
)

# %%
# Where the light is
# ------------------
# Over all sixteen galaxies: the part of the flux in rings around the centre, against the truth, SDSS to CFHTLS.

results = {
    name: [translated(name, pair.first, pair.second)[R] for pair in pairs] for name in ("psf-matching", "surveynet")
}
edges = np.array([0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 28])
centres = [pair.galaxy["positions"][1] for pair in pairs]
truths = [pair.second.truth[R] for pair in pairs]
true = np.array([radial_flux_fractions(image, xy, edges) for image, xy in zip(truths, centres, strict=True)])
figure, axis = plt.subplots(figsize=(6.4, 3.9), layout="constrained")
radius = 0.5 * (edges[1:] + edges[:-1]) * shown.second.pixel_scale
table = Table(names=("backend", "mean |f - f true|"), dtype=(str, float))
for name, images in results.items():
    found = np.array([radial_flux_fractions(image, xy, edges) for image, xy in zip(images, centres, strict=True)])
    difference = found - true
    axis.plot(radius, difference.mean(axis=0), marker="o", label=name)
    low, high = np.quantile(difference, (0.16, 0.84), axis=0)
    axis.fill_between(radius, low, high, alpha=0.2)
    table.add_row((name, np.abs(difference).mean()))
axis.axhline(0, color="0.5", lw=0.8)
axis.set(xlabel="radius [arcsec]", ylabel="part of the flux, result $-$ truth", title="SDSS to CFHTLS, r")
axis.legend()
table["mean |f - f true|"].info.format = ".4f"
table.pprint(max_width=-1)

# %%
# Noise of the survey's kind
# --------------------------
# A noise model is learned from the target survey's stamps of other galaxies, whose noise-free images are known here (of
# a real survey, give the mask of the sources instead). It is drawn for what the translated image lacks of the target's
# noise. Downwards that is nearly all of it: scatter and correlations of the blank corners are those of SDSS.

others = [simulate_stamp(seed, "sdss", bands=BANDS) for seed in range(12)]
model = CorrelatedNoise.fit(
    np.stack([stamp.data for stamp in others]), signal=np.stack([stamp.truth for stamp in others]), size=5
)
sigma = np.array([pair.first.sigma for pair in pairs])[:, :, None, None]
as_sdss = {
    name: np.stack([translated("psf-matching", pair.second, pair.first, noise) for pair in pairs]) / sigma
    for name, noise in (("white", WhiteNoise()), ("fitted", model))
}
as_sdss["SDSS"] = np.stack([pair.first.data for pair in pairs]) / sigma
dark = np.stack([pair.first.truth for pair in pairs]) > 0.2 * sigma
table = Table(names=("noise", "scatter / sigma", "corr. 1", "corr. diagonal", "corr. 2"), dtype=(str, *[float] * 4))
for name, images in as_sdss.items():
    scatter = [noise_std(image, mask=mask) for image, mask in zip(images, dark, strict=True)]
    lags = [
        noise_autocorrelation(image, lags=((0, 1), (1, 1), (0, 2)), mask=mask)
        for image, mask in zip(images, dark, strict=True)
    ]
    table.add_row((name, np.mean(scatter), *np.mean(lags, axis=(0, 1))))
for column in table.colnames[1:]:
    table[column].info.format = ".3f"
table.pprint(max_width=-1)

# %%
# The same in Fourier space: the stacked power of blank sky, translated over real, all bands together in units of their
# noise. White noise is far too strong on small scales; of the fitted model's map only the scatter of 48 images remains.

stack = (-1, *dark.shape[-2:])
maps = {n: stacked_fourier_map(images.reshape(stack), mask=dark.reshape(stack)) for n, images in as_sdss.items()}
figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.5), layout="constrained")
for axis, name in zip(axes, ("white", "fitted"), strict=False):
    comparison = compare_fourier_maps(maps["SDSS"], maps[name])
    ratio = axis.imshow(
        comparison.log_ratio, origin="lower", vmin=-1.5, vmax=1.5, cmap="RdBu_r", extent=(-0.5, 0.5, -0.5, 0.5)
    )
    axis.set(title=name, xlabel="$k_x$ [1 / pixel]")
    axes[2].plot(comparison.frequency, comparison.profile, label=f"{name}: {comparison.error:.2f}")
axes[0].set_ylabel("$k_y$ [1 / pixel]")
axes[2].set(xlabel="k [1 / pixel]", ylabel="mean |ln ratio|", ylim=(0, None))
axes[2].legend(title="mean over k")
figure.colorbar(ratio, ax=axes[:2], label="ln (power / power of SDSS)")

# %%
# A real pair
# -----------
# With the folder of real images at hand (ASTROGAN_DATA), a galaxy that KiDS and SDSS both saw: KiDS translated to SDSS,
# and SDSS to KiDS. The first differs from the real image by the real image's noise. The second shows what the
# other survey saw and this one could not; what a network puts there is a guess.

if os.environ.get("ASTROGAN_DATA"):
    from astrogan.bench.translation_real import run

    with tempfile.TemporaryDirectory() as folder:
        real = run(parts=["pairs"], images=1, out=folder)
        pictures = [plt.imread(path) for path in map(Path, real.files) if path.suffix == ".png"]
    real.tables["pairs"]["direction", "row", "psnr", "rel_l2", "dmag_in", "offset", "size", "chi2"].pprint(
        max_width=-1, max_lines=-1
    )
    for picture in pictures:
        height, width = picture.shape[:2]
        figure = plt.figure(figsize=(width / 110, height / 110))
        axis = figure.add_axes((0, 0, 1, 1))
        axis.imshow(picture)
        axis.set_axis_off()
