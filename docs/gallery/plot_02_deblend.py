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

import matplotlib.pyplot as plt
import numpy as np
from astropy.table import Table
from astropy.visualization import AsinhStretch, ImageNormalize, make_lupton_rgb
from matplotlib.ticker import NullFormatter

from astrogan import Deblender
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
