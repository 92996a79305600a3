"""
Taking a blend apart
====================

Overlapping sources in three bands are detected, separated with two backends, and compared with the truth. Whatever
the method, sources and residual add up to the image.
"""

# %%
# A field with blends
# -------------------

import matplotlib.pyplot as plt
import numpy as np
from astropy.visualization import AsinhStretch, ImageNormalize, make_lupton_rgb

from astrogan import Deblender
from astrogan.simulate.field import simulate_field

field = simulate_field((256, 256), bands=("g", "r", "i"), seed=11, n_blends=5, galaxy_density=15, saturated_star=False)

# %%
# Separate the sources
# --------------------
# Detection works on the weighted sum of the bands. The catalog has sky coordinates, because the images have a WCS.

results = {name: Deblender(name)(field.images) for name in ("watershed", "symmetric")}
catalog = results["symmetric"].catalog
catalog["id", "x", "y", "ra", "dec", "flux_r", "flux_err_r", "blendedness"][:8].pprint(max_width=-1)

# %%
# Nothing is lost
# ---------------
# Sources plus residual equal the image, noise included.

for name, result in results.items():
    image = np.stack([field.images[band].data for band in field.images])
    total = np.asarray(result.recompose().data)
    print(f"{name:10s} {len(result.sources):3d} sources, worst difference {np.abs(total - image).max():.1e} nmgy")

# %%
# Outlines on the image
# ---------------------

figure, axes = plt.subplots(1, 2, figsize=(9.4, 4.8), layout="constrained")
colour = make_lupton_rgb(*(field.images[band].data for band in "irg"), stretch=1.2, Q=8)
for axis, (name, result) in zip(axes, results.items(), strict=True):
    axis.imshow(colour, origin="lower")
    axis.contour(np.asarray(result.segmentation) > 0, levels=[0.5], colors="white", linewidths=0.5)
    axis.plot(result.catalog["x"], result.catalog["y"], "+", color="yellow", ms=5, mew=0.8)
    axis.set(title=f"{name}: {len(result.sources)} sources", xticks=[], yticks=[])

# %%
# Fluxes against the truth
# ------------------------
# Each true source with its nearest detected one, within 3 pixels. Hard labels give the wings of the fainter neighbour
# to the brighter one; sharing flux between templates does better where sources overlap.

figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for marker, (name, result) in zip("s.", results.items(), strict=True):
    found = result.catalog
    distance = np.hypot(
        np.asarray(field.catalog["x"])[:, None] - np.asarray(found["x"]),
        np.asarray(field.catalog["y"])[:, None] - np.asarray(found["y"]),
    )
    nearest, near = distance.argmin(axis=1), distance.min(axis=1) < 3
    true = np.asarray(field.catalog["flux_r"])[near]
    measured = np.asarray(found["flux_r"])[nearest[near]]
    axis.plot(true, measured / true, marker, alpha=0.8, label=name)
    print(f"{name:10s} median |dF/F| = {np.median(np.abs(measured / true - 1)):.3f} over {near.sum()} sources")
axis.axhline(1, color="0.6", lw=0.8)
axis.set(xscale="log", ylim=(0, 2), xlabel="true flux in r [nmgy]", ylabel="measured / true")
axis.legend()

# %%
# The most blended pair
# ---------------------

result = results["symmetric"]
worst = int(np.argmax(np.asarray(result.catalog["blendedness"]) * (np.asarray(result.catalog["flux_r"]) > 5)))
band = list(field.images).index("r")
distance = np.hypot(catalog["x"] - catalog["x"][worst], catalog["y"] - catalog["y"][worst])
other = int(np.argsort(np.asarray(distance))[1])
x, y, half = int(catalog["x"][worst]), int(catalog["y"][worst]), 22
box = np.s_[band, max(y - half, 0) : y + half, max(x - half, 0) : x + half]
panels = {
    "image (r)": np.stack([image.data for image in field.images.values()]),
    "one source": np.asarray(result.full(worst)),
    "its neighbour": np.asarray(result.full(other)),
    "residual": np.asarray(result.residual.data),
}
norm = ImageNormalize(vmin=-0.05, vmax=panels["image (r)"][box].max(), stretch=AsinhStretch(0.03))
figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
for axis, (title, image) in zip(axes, panels.items(), strict=True):
    shown = axis.imshow(image[box], origin="lower", norm=norm, cmap="viridis")
    axis.set(title=title, xticks=[], yticks=[])
figure.colorbar(shown, ax=axes, label="flux [nmgy / pixel]", shrink=0.9)
