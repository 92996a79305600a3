"""
Taking a blend apart
====================

Overlapping galaxies in three bands are separated with three backends and compared with the truth. Whatever the method,
sources and residual add up to the image.
"""

# %%
# A field with blends
# -------------------
# Pairs and triples of galaxies within a few times the seeing, and some stars.

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.table import Table
from astropy.visualization import AsinhStretch, ImageNormalize, make_lupton_rgb
from matplotlib.ticker import MaxNLocator, NullFormatter

from astrogan import Deblender
from astrogan.simulate.blends import simulate_blend
from astrogan.simulate.field import simulate_field

field = simulate_field(
    (256, 256), seed=11, n_spirals=0, n_blends=8, galaxy_density=15, saturated_star=False, bad_column=False
)
bright = field.catalog[field.catalog["flux_r"] > 1]
blended = np.asarray(bright["blend"]) > 0
print(f"{len(bright)} sources brighter than 1 nmgy in r, {blended.sum()} of them in blends")

# %%
# Separate the sources
# --------------------
# Once with the sources detected on the noise-weighted sum of the bands, and once with positions given: a table with
# ``x`` and ``y``, or ``ra`` and ``dec``. The catalog has sky coordinates, because the images have a WCS. ``hybrid`` is
# the default, ``Deblender()``.

names = ("watershed", "symmetric", "hybrid")
detected = Deblender("hybrid")(field.images)
given = {name: Deblender(name)(field.images, bright) for name in names}

catalog = given["hybrid"].catalog["id", "x", "y", "ra", "dec", "flux_r", "flux_err_r", "blendedness"]
for name, form in {"x": ".1f", "y": ".1f", "ra": ".5f", "dec": ".5f", "flux_r": ".2f", "flux_err_r": ".2f"}.items():
    catalog[name].info.format = form
catalog["blendedness"].info.format = ".2f"
catalog[:8].pprint(max_width=-1)

# %%
# Nothing is lost
# ---------------
# Sources plus residual equal the image, noise included, to the last bit or so of float32.

cube = np.stack([image.data for image in field.images.values()])
for name, result in given.items():
    difference = np.abs(result.recompose().data - cube).max() / np.abs(cube).max()
    print(f"{name:10s} {len(result)} sources, worst difference {difference:.1e} of the peak")

# %%
# What was detected
# -----------------
# Circles are true sources, crosses those detected, outlines the pixels that belong to any. Where a circle has no cross,
# two sources are too near to each other for detection to tell them apart, and no way of sharing flux mends that.

result = detected
figure, axis = plt.subplots(figsize=(6.6, 6.6), layout="constrained")
axis.imshow(make_lupton_rgb(*(field.images[band].data for band in "irg"), stretch=0.15, Q=6), origin="lower")
axis.contour(result.segmentation > 0, levels=[0.5], colors="white", linewidths=0.5)
axis.plot(bright["x"], bright["y"], "o", ms=9, mfc="none", mec="deepskyblue", label="true, above 1 nmgy")
axis.plot(result.catalog["x"], result.catalog["y"], "+", color="yellow", ms=6, label="detected")
axis.set(xlabel="x [pixel]", ylabel="y [pixel]", title="bands i, r, g")
axis.legend(loc="upper right", framealpha=0.9)

# %%
# Fluxes against the truth
# ------------------------
# With the positions given, only the way of sharing flux differs. Hard labels give each pixel to one source: the fainter
# of a pair loses its wings to the brighter one and, where it makes no peak of its own, nearly everything. Templates
# share each pixel; those of ``hybrid`` know the PSF, and what galaxies look like. Galaxies as regular as these are
# nearly symmetric, and symmetric templates serve them as well; :doc:`/user_guide/benchmarks` has harder ones.

rows = []
figure, axes = plt.subplots(1, 3, figsize=(11.5, 4.2), sharey=True, layout="constrained")
for axis, (name, result) in zip(axes, given.items(), strict=True):
    ratio = result.catalog["flux_r"].value / np.asarray(bright["flux_r"])
    for group, members, marker in (("in a blend", blended, "o"), ("alone", ~blended, "s")):
        axis.plot(bright["flux_r"][members], ratio[members], marker, mfc="none", label=group)
        error = np.abs(ratio[members] - 1)
        rows.append((name, group, members.sum(), np.median(error), error.mean(), error.max()))
    axis.axhline(1, color="0.6", lw=0.8, zorder=0)
    axis.set(xscale="log", xlabel="true flux in r [nmgy]", title=name)
    axis.set_xticks([3, 10, 30], labels=["3", "10", "30"])
    axis.xaxis.set_minor_formatter(NullFormatter())
axes[0].set(ylabel="measured / true", ylim=(0, max(2.0, 1.1 * max(row[5] for row in rows) + 1)))
axes[-1].legend()
table = Table(rows=rows, names=("backend", "sources", "number", "median |dF/F|", "mean", "worst"))
for column in table.colnames[3:]:
    table[column].info.format = ".3f"
table.pprint(max_width=-1)

# %%
# A close pair
# ------------
# The pair in which the methods differ most, in r: the image, the two sources, and what is left.

ratios = {name: result.catalog["flux_r"].value / np.asarray(bright["flux_r"]) for name, result in given.items()}
worst = int(np.argmax(np.abs(ratios["watershed"] - ratios["hybrid"]) * blended))
distance = np.hypot(bright["x"] - bright["x"][worst], bright["y"] - bright["y"][worst])
other = int(np.argsort(np.asarray(distance))[1])
x, y, half = round(bright["x"][worst]), round(bright["y"][worst]), 20
box = np.s_[1, max(y - half, 0) : y + half, max(x - half, 0) : x + half]
norm = ImageNormalize(vmin=-0.01, vmax=cube[box].max(), stretch=AsinhStretch(0.03))
figure, axes = plt.subplots(3, 4, figsize=(11, 8.5), layout="constrained")
for row, (name, result) in zip(axes, given.items(), strict=True):
    panels = {
        "image": cube[box],
        f"source {worst + 1}": result.full(worst).data[box],
        f"source {other + 1}": result.full(other).data[box],
        "residual": result.residual.data[box],
    }
    for axis, (title, image) in zip(row, panels.items(), strict=True):
        shown = axis.imshow(image, origin="lower", norm=norm, cmap="viridis")
        axis.set(title=title, xticks=[], yticks=[])
    for axis, i in zip(row[1:3], (worst, other), strict=True):
        axis.set_xlabel(f"{ratios[name][i]:.2f} of its flux")
    row[0].set_ylabel(name)
figure.colorbar(shown, ax=axes, label="r flux [nmgy / pixel]", shrink=0.9, format="%g")

# %%
# Blends without a truth
# ----------------------
# What can be said of a real blend, whose sources nobody knows alone? How far the methods disagree: at least one of them
# is off by half of that, or more. Where ASTROGAN_DATA names the folder of real images this is a blend of the HSC survey
# in five bands, with the peaks that its pipeline found; elsewhere one is simulated, and its truth not looked at.

if os.environ.get("ASTROGAN_DATA"):
    with np.load(
        Path(os.environ["ASTROGAN_DATA"]) / "hsc_hst_scarlet" / "hsc_cosmos_35.npz", allow_pickle=False
    ) as file:
        data, psfs, variance, bands = file["images"], file["psfs"], file["variance"], "grizy"
        positions = np.stack([file["catalog"]["x"], file["catalog"]["y"]], axis=1)
else:
    scene = simulate_blend(12, sources=5, snr=(30.0, 500.0))
    data, psfs, variance, bands, positions = scene.data, scene.psf, scene.variance, scene.bands, scene.positions
blend = {
    band: CCDData(plane, unit="adu", uncertainty=VarianceUncertainty(v), psf=psf, meta={"BAND": band})
    for band, plane, v, psf in zip(bands, data, variance, psfs, strict=True)
}
apart = {name: Deblender(name)(blend, positions) for name in names}
r = list(bands).index("r")
table = Table({"source": np.arange(1, len(positions) + 1)})
for name, result in apart.items():
    table[name] = np.asarray(result.catalog["flux_r"])
fluxes = np.stack([table[name] for name in names])
table["error of hybrid"] = np.asarray(apart["hybrid"].catalog["flux_err_r"])
table["largest - smallest"] = np.ptp(fluxes, axis=0)
for column in table.colnames[1:]:
    table[column].info.format = ".4g"
table.pprint(max_width=-1)

# %%
# The three brightest sources in r, a row a method, and the residual in units of the noise. Where any source has its
# share nothing is left, by construction, so that a flat residual says nothing about how good the shares are. It shows
# what nobody claims. In the real blend that is a source at the right edge that the list of peaks lacks; were it nearer
# to the others, its light would have gone to them without a trace.

brightest = np.argsort(fluxes.mean(axis=0))[::-1][:3]
norm = ImageNormalize(vmin=-0.01 * data[r].max(), vmax=data[r].max(), stretch=AsinhStretch(0.03))
figure, axes = plt.subplots(3, 5, figsize=(11.5, 7.2), layout="constrained")
for row, (name, result) in zip(axes, apart.items(), strict=True):
    panels = {"image": data[r]} | {f"source {i + 1}": result.full(int(i)).data[r] for i in brightest}
    for axis, (title, image) in zip(row, panels.items(), strict=False):
        flux = axis.imshow(image, origin="lower", norm=norm)
        axis.set_title(title)
    left = row[4].imshow(result.residual.data[r] / np.sqrt(variance[r]), origin="lower", vmin=-5, vmax=5, cmap="RdBu_r")
    row[4].set_title("residual")
    row[0].plot(positions[:, 0], positions[:, 1], "+", color="white", ms=6)
    row[0].set_ylabel(name)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
bar = {"shrink": 0.8, "location": "bottom", "aspect": 50, "format": "%.3g", "ticks": MaxNLocator(4)}
figure.colorbar(flux, ax=axes[:, :4], label="r flux [unit of the image]", **bar)
figure.colorbar(left, ax=axes[:, 4], label="residual / $\\sigma$", location="bottom")
