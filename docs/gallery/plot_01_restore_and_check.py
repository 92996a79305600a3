"""
Where deconvolution ends
========================

A galaxy field is blurred and made noisier, then restored with several backends. How near do they come to the image
before, does any of them contradict the data, and what do they make of empty sky?
"""

# %%
# A field with a known truth
# --------------------------
# A spiral with clumpy arms, ellipticals, blends and stars in three bands, as a wide survey sees them, and the same
# without noise. Every band comes as `~astropy.nddata.CCDData` with WCS, variance, PSF and mask.

import warnings

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.stats import mad_std
from astropy.table import Table
from astropy.visualization import AsinhStretch, ImageNormalize, make_lupton_rgb
from matplotlib.cm import ScalarMappable

from astrogan import Degrader, Restorer
from astrogan.exceptions import UncertaintyWarning
from astrogan.metrics import psnr
from astrogan.simulate.field import simulate_field

field = simulate_field((256, 256), bands=("g", "r", "i"), seed=3, saturated_star=False, bad_column=False)
for band, image in field.images.items():
    print(f"{band}: {image.shape} pixels, {image.unit}, {type(image.uncertainty).__name__}")

# %%
# Degrade it
# ----------
# ``match=False`` puts a Gaussian of 1.2 arcsec *on top of* the seeing that is there, and noise is added until there is
# twice as much as before. Taking off that Gaussian leads back to the resolution of the original, which is well sampled
# and known; taking off the whole PSF would ask for detail finer than the pixels.

blur = 1.2 * u.arcsec
degraded = Degrader(psf=blur, noise=2.0, match=False)(field.images, rng=1)


def colour(images):
    """The three bands as a colour composite, red first."""
    return make_lupton_rgb(*(images[band].data for band in "irg"), stretch=0.15, Q=6)


figure, axes = plt.subplots(1, 2, figsize=(9, 4.8), layout="constrained")
for axis, (title, images) in zip(axes, {"observed": field.images, "degraded": degraded}.items(), strict=True):
    axis.imshow(colour(images), origin="lower")
    axis.set(title=title, xticks=[], yticks=[])
figure.supxlabel("51 x 51 arcsec; bands i, r, g as red, green, blue")

# %%
# Restore it
# ----------
# Every backend that needs no weights of your own, through the same call. ``identity`` does nothing and ``gaussian``
# only smooths: rows that belong in every such table, because much of what restoring gains in PSNR is denoising.
# ``nafnet`` is a network with weights that come with astrogan; ``blind-richardson-lucy`` takes the PSF for a first
# guess. Some methods give no uncertainty and warn that the result has none; here that is expected.

warnings.simplefilter("ignore", UncertaintyWarning)
classic = ("identity", "gaussian", "wiener", "unsupervised-wiener", "tikhonov", "tv", "wavelet", "richardson-lucy")
backends = (*classic, "blind-richardson-lucy", "nafnet")
options = {"richardson-lucy": {"iterations": 15}}
restored, reports = {}, {}
for name in backends:
    restorer = Restorer(name, psf=blur, **options.get(name, {}))
    restored[name] = restorer(degraded)
    reports[name] = restorer.diagnose(degraded, restored[name])

# %%
# How near to the truth, and is it consistent with the data?
# ----------------------------------------------------------
# PSNR refers to the noise-free image at the resolution of the original observation, in the r band, over the range of
# that image. The flux ratio is the sum over all pixels against the truth's. The reduced chi squared compares each
# result, blurred again, with the degraded image, all bands together. Its statistical error is 0.003 for so many pixels,
# so ``identity`` and ``gaussian`` contradict the data: they are still blurred, and blurring them once more is too much.
# The others agree; a little less than one means that a little of the noise was fitted. The network is far ahead, but it
# is at home here: some of the galaxies that it was trained on were drawn in much the same way, and the real sky is
# harder. It is also the one whose flux is off most.

truth = field.truth_images["r"].data
good = ~degraded["r"].mask
span = np.ptp(truth[good])
table = Table({"backend": backends})
table["PSNR [dB]"] = [psnr(truth, restored[name]["r"].data, data_range=span, mask=~good) for name in backends]
table["flux ratio"] = [restored[name]["r"].data[good].sum() / truth[good].sum() for name in backends]
table["reduced chi2"] = [reports[name].reduced_chi2 for name in backends]
for column, form in (("PSNR [dB]", ".2f"), ("flux ratio", ".4f"), ("reduced chi2", ".3f")):
    table[column].info.format = form
table.pprint(max_width=-1)

# %%
# One spiral, seen closely
# ------------------------
# The r band, a column a backend. From the top: the result; what is left against the truth, in units of the degraded
# image's noise; the local chi squared of the result, blurred again, against the data; and the uncertainty that comes
# with the result, in the same units, where the method gives one (``richardson-lucy`` can be asked for it).
#
# Deconvolving brings back arms and part of the clumps. What is finer than that stays lost, and the same spots are red
# and blue for most methods. The chi squared sees little of it. It finds ``identity`` and ``gaussian``, and that
# ``wiener`` and ``tikhonov`` have flattened the centre; but the clumps that ``tv`` lacks the blur takes away in any
# case, so that its map is as good as that of ``nafnet``. The uncertainty of the linear filters is that of the noise
# alone. Only the network's says where structure is likely to be wrong: at the clumps, where it is.

spiral = field.catalog[np.argmax(field.catalog["flux_r"] * (field.catalog["type"] == "spiral"))]
x, y, half = round(spiral["x"]), round(spiral["y"]), 32
box = np.s_[max(y - half, 0) : y + half, max(x - half, 0) : x + half]
sigma = float(np.sqrt(np.median(degraded["r"].uncertainty.array[good])))
norm = ImageNormalize(vmin=-2 * sigma, vmax=truth[box].max(), stretch=AsinhStretch(0.05))
scales = {
    "result": (norm, "viridis", "r flux\n[nmgy / pixel]"),
    "residual": (ImageNormalize(vmin=-10, vmax=10), "RdBu_r", "(result $-$ truth) / $\\sigma$"),
    "chi2": (ImageNormalize(vmin=0, vmax=3), "magma", "local $\\chi^2$"),
    "uncertainty": (ImageNormalize(vmin=0, vmax=4), "cividis", "uncertainty / $\\sigma$"),
}


def planes(name):
    """What is drawn of a backend, by row."""
    image = restored[name]["r"]
    own = image.uncertainty
    return {
        "result": image.data[box],
        "residual": (image.data[box] - truth[box]) / sigma,
        "chi2": reports[name].chi2[reports[name].bands.index("r")][box],
        "uncertainty": None if own is None else own.represent_as(StdDevUncertainty).array[box] / sigma,
    }


for names in (backends[:5], backends[5:]):
    figure, axes = plt.subplots(4, 5, figsize=(11.5, 8.6), layout="constrained")
    for column, name in zip(axes.T, names, strict=True):
        for axis, (kind, plane) in zip(column, planes(name).items(), strict=True):
            axis.set(xticks=[], yticks=[])
            if plane is None:
                axis.set_facecolor("0.93")
                axis.text(0.5, 0.5, "gives none", transform=axis.transAxes, ha="center", va="center", color="0.4")
            else:
                axis.imshow(plane, origin="lower", norm=scales[kind][0], cmap=scales[kind][1])
        column[0].set_title(name, fontsize=10)
    for line, (scale, colours, label) in zip(axes, scales.values(), strict=True):
        ticks = [0, 0.01, 0.03, 0.1, 0.3] if scale is norm else None
        figure.colorbar(ScalarMappable(scale, colours), ax=line, label=label, ticks=ticks, format="%g")

# %%
# For comparison, the truth and what was observed of it.

figure, axes = plt.subplots(1, 3, figsize=(8.6, 2.9), layout="constrained")
for axis, (title, data) in zip(
    axes, {"truth": truth, "observed": field.images["r"].data, "degraded": degraded["r"].data}.items(), strict=True
):
    flux = axis.imshow(data[box], origin="lower", norm=norm)
    axis.set(title=title, xticks=[], yticks=[])
figure.colorbar(flux, ax=axes, label="r flux [nmgy / pixel]", ticks=[0, 0.01, 0.03, 0.1, 0.3], format="%g")

# %%
# Empty sky
# ---------
# A method must not find sources where there are none. What becomes of noise alone? The scatter of the result and its
# brightest pixel are in units of the noise that went in; the last column counts pixels above five times the result's
# own scatter. A bright pixel that stands out of a flat sky would be called a source: ``wavelet`` and ``nafnet`` flatten
# the sky so far that what little is left does. Detection on a restored image needs its own threshold, found in this
# way.

noise = np.random.default_rng(5).normal(0, sigma, truth.shape)
uncertainty = StdDevUncertainty(np.full(noise.shape, sigma))
sky = CCDData(noise, unit="nmgy", wcs=field.wcs, uncertainty=uncertainty)
rows = []
for name in backends:
    result = Restorer(name, psf=blur, **options.get(name, {}))(sky).data
    scatter = mad_std(result)
    rows.append((name, scatter / sigma, result.max() / sigma, int((result > 5 * scatter).sum())))
table = Table(rows=rows, names=("backend", "scatter", "brightest", "pixels above 5 scatter"))
table["scatter"].info.format = table["brightest"].info.format = ".3f"
table.pprint(max_width=-1)
