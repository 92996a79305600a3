"""
Where deconvolution ends
========================

A galaxy field is degraded to a seeing of 1.4 arcsec, then restored with several backends. How near do they come to the
image before, does any of them contradict the data, and what do they make of empty sky?
"""

# %%
# A field with a known truth
# --------------------------
# Spirals with clumpy arms, ellipticals, blends and stars in three bands, as a wide survey sees them, and the same
# without noise. Everything comes as `~astropy.nddata.CCDData` with WCS, variance and mask.

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.table import Table
from astropy.visualization import AsinhStretch, ImageNormalize, make_lupton_rgb

from astrogan import Degrader, Restorer
from astrogan.metrics import psnr
from astrogan.simulate.field import simulate_field

field = simulate_field((256, 256), bands=("g", "r", "i"), seed=3)
print({band: f"{image.shape}, {image.unit}" for band, image in field.images.items()})

# %%
# Degrade it
# ----------
# ``match=True`` brings the PSF to 1.4 arcsec (Gaussian), and noise is added until there is twice as much as before. The
# result knows its own PSF.

degraded = Degrader(psf=1.4 * u.arcsec, noise=2.0, match=True)(field.images, rng=1)


def rgb(images):
    """The three bands as a colour composite, red first."""
    return make_lupton_rgb(*(images[band].data for band in "irg"), stretch=1.5, Q=8)


figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
for axis, (title, images) in zip(axes, {"observed": field.images, "degraded": degraded}.items(), strict=True):
    axis.imshow(rgb(images), origin="lower")
    axis.set(title=title, xticks=[], yticks=[])

# %%
# Restore it
# ----------
# Every backend runs through the same call. ``identity`` does nothing and ``gaussian`` only smooths: rows that belong in
# every such table, because much of what restoring gains in PSNR is denoising.

backends = ("identity", "gaussian", "wiener", "tikhonov", "wavelet", "richardson-lucy")
restored, reports = {}, {}
for name in backends:
    restorer = Restorer(name, **({"iterations": 15} if name == "richardson-lucy" else {}))
    restored[name] = restorer(degraded, psf=1.4 * u.arcsec)
    reports[name] = restorer.diagnose(degraded, restored[name], psf=1.4 * u.arcsec)

# %%
# How near to the truth, and is it consistent with the data?
# ----------------------------------------------------------
# PSNR refers to the noise-free image at the resolution of the original observation. The reduced chi squared compares
# each result, convolved with the PSF again, with the degraded image: about one is good, and ``identity`` fails (it is
# still blurred, so convolving it again blurs it twice).

truth = field.truth_images["r"].data
good = ~np.asarray(degraded["r"].mask, bool)
span = np.ptp(truth[good])
table = Table(
    {
        "backend": backends,
        "PSNR [dB]": [psnr(truth, restored[n]["r"].data, data_range=span, mask=~good) for n in backends],
        "flux ratio": [restored[n]["r"].data[good].sum() / degraded["r"].data[good].sum() for n in backends],
        "reduced chi2": [reports[n].reduced_chi2 for n in backends],
    }
)
for column, form in (("PSNR [dB]", ".2f"), ("flux ratio", ".4f"), ("reduced chi2", ".3f")):
    table[column].info.format = form
table.pprint(max_width=-1)

# %%
# One spiral, seen closely
# ------------------------
# Top: the r band. Bottom: what is left against the truth, in units of the background's noise.

spiral = field.catalog[np.argmax(field.catalog["flux_r"] * (field.catalog["type"] == "spiral"))]
x, y, half = int(spiral["x"]), int(spiral["y"]), 34
box = np.s_[max(y - half, 0) : y + half, max(x - half, 0) : x + half]
panels = {"truth": truth, **{name: restored[name]["r"].data for name in ("identity", "wiener", "richardson-lucy")}}
sigma = np.std(restored["identity"]["r"].data - truth)
norm = ImageNormalize(vmin=-2 * sigma, vmax=truth[box].max(), stretch=AsinhStretch(0.05))

figure, axes = plt.subplots(2, 4, figsize=(11, 5.6), layout="constrained")
for column, (name, image) in enumerate(panels.items()):
    top = axes[0, column].imshow(image[box], origin="lower", norm=norm, cmap="viridis")
    left = axes[1, column].imshow((image - truth)[box] / sigma, origin="lower", vmin=-6, vmax=6, cmap="RdBu_r")
    axes[0, column].set(title=name, xticks=[], yticks=[])
    axes[1, column].set(xticks=[], yticks=[])
figure.colorbar(top, ax=axes[0], label="flux [nmgy / pixel]", shrink=0.9)
figure.colorbar(left, ax=axes[1], label="(image - truth) / sigma", shrink=0.9)

# %%
# Empty sky
# ---------
# A method must not find sources where there are none. On noise alone the number of pixels above 5 sigma, each image
# measured with its own sigma, should be as for the input.

sky = degraded["r"].copy()
sky.data = np.random.default_rng(5).normal(0, sigma, sky.shape).astype("f4")
sky.mask = None
for name in backends:
    result = Restorer(name)(sky, psf=1.4 * u.arcsec).data
    noise = 1.4826 * np.median(np.abs(result - np.median(result)))
    print(f"{name:16s} {int((result > 5 * noise).sum()):4d} pixels above 5 sigma" if noise > 0 else f"{name:16s} flat")
