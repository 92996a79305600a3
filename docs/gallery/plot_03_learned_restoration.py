"""
Learned restoration, and how far to trust it
============================================

A network restores a galaxy field beside two classic methods. How near does each come to the truth? Does the network's
uncertainty hold? What do the diagnostics see, and what happens where the network has never been?
"""

# %%
# A field with a known truth
# --------------------------
# One band of a wide survey, as observed and without noise, from `astrogan.simulate.field.simulate_field` (GalSim draws
# it). A Gaussian of 0.9 arcsec is put on top of the seeing, and noise is added until there is twice as much.

import warnings

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.nddata import StdDevUncertainty
from astropy.table import Table
from astropy.visualization import AsinhStretch, ImageNormalize

from astrogan import Degrader, Restorer
from astrogan.exceptions import OutOfRangeWarning, UncertaintyWarning
from astrogan.metrics import psnr
from astrogan.simulate.field import simulate_field

field = simulate_field((256, 256), bands=("r",), seed=5, saturated_star=False, bad_column=False)
original, truth = field.images["r"], field.truth_images["r"].data
blur = 0.9 * u.arcsec
degraded = Degrader(psf=blur, noise=2.0, match=False)(original, rng=1)
good = ~degraded.mask


def sigma_of(image):
    """The standard deviation of each pixel."""
    return image.uncertainty.represent_as(StdDevUncertainty).array


# %%
# Restore it
# ----------
# ``psf`` is the blur that was added: it lies between the image wanted and the image given. The network is called like
# any other backend. Without ``weights`` it takes those that fit the image best; the result says which ones they were.

warnings.simplefilter("ignore", UncertaintyWarning)  # Richardson-Lucy gives none unless asked
restorers = {
    "identity": Restorer("identity", psf=blur),
    "richardson-lucy": Restorer("richardson-lucy", psf=blur, iterations=15),
    "wiener": Restorer("wiener", psf=blur),
    "nafnet": Restorer("nafnet", psf=blur),
}
restored = {name: restorer(degraded) for name, restorer in restorers.items()}
print(restored["nafnet"].meta["AGWEIGHT"])

# %%
# How near to the truth?
# ----------------------
# PSNR and flux against the noise-free image, and the reconvolution check. What ``wiener`` gains over ``identity`` is
# deconvolution and denoising by a filter; what the network gains over ``wiener`` is learned. These galaxies are drawn
# from smooth profiles and knots, and so were some of those that it was trained on: expect less on the real sky.

span = np.ptp(truth[good])
table = Table(names=("backend", "PSNR [dB]", "flux ratio", "reduced chi2"), dtype=(str, float, float, float))
for name, image in restored.items():
    chi2 = restorers[name].diagnose(degraded, image).reduced_chi2
    score = psnr(truth, image.data, data_range=span, mask=~good)
    table.add_row((name, score, image.data[good].sum() / truth[good].sum(), chi2))
for column, form in zip(table.colnames[1:], (".2f", ".4f", ".3f"), strict=True):
    table[column].info.format = form
table.pprint(max_width=-1)

# %%
# The brightest spiral, closely. Bottom: what is left against the truth, in units of the degraded image's noise.

spiral = field.catalog[np.argmax(field.catalog["flux_r"] * (field.catalog["type"] == "spiral"))]
x, y = (int(np.clip(round(spiral[axis]), 36, 220)) for axis in "xy")
box = np.s_[y - 36 : y + 36, x - 36 : x + 36]
noise = float(np.median(sigma_of(degraded)[good]))
norm = ImageNormalize(vmin=-2 * noise, vmax=truth[box].max(), stretch=AsinhStretch(0.05))
figure, axes = plt.subplots(2, 5, figsize=(11.5, 4.9), layout="constrained")
for column, (title, data) in zip(
    axes.T, {"truth": truth, **{n: i.data for n, i in restored.items()}}.items(), strict=True
):
    flux = column[0].imshow(data[box], origin="lower", norm=norm)
    column[0].set_title(title)
    left = column[1].imshow((data - truth)[box] / noise, origin="lower", vmin=-8, vmax=8, cmap="RdBu_r")
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
axes[1, 0].set_axis_off()
figure.colorbar(flux, ax=axes[0], label="r flux [nmgy / pixel]", ticks=[0, 0.01, 0.03, 0.1, 0.3], format="%g")
figure.colorbar(left, ax=axes[1], label="(image $-$ truth) / $\\sigma$")

# %%
# Does the uncertainty hold?
# --------------------------
# The network predicts a standard deviation for each pixel. Left: predicted. Middle: what the error was. Right: errors
# over predictions; were they Gaussian and the prediction perfect, the histogram would follow the line. The table has
# the part of the pixels within one standard deviation, 0.68 if all is well. In the sky that depends on what one
# compares with: the noise-free truth, or the original with its noise, which no restoration can foresee. The training
# had both. Bright pixels care less. The uncertainty of ``wiener`` is that of the noise alone: it does not know what the
# filter leaves out, and bright pixels show it.

error, sigma = restored["nafnet"].data - truth, sigma_of(restored["nafnet"])
bright = good & (truth > 5 * noise)
rows = []
for name in ("wiener", "nafnet"):
    for against, image in (("truth", truth), ("original", original.data)):
        inside = np.abs(restored[name].data - image) < sigma_of(restored[name])
        rows.append((name, against, np.mean(inside[good]), np.mean(inside[bright])))
table = Table(rows=rows, names=("backend", "against the", "all pixels", "bright pixels"))
table["all pixels"].info.format = table["bright pixels"].info.format = ".3f"
table.pprint(max_width=-1)

figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.7), layout="constrained")
for axis, data, title in ((axes[0], sigma, "predicted $\\sigma$"), (axes[1], np.abs(error), "|restored $-$ truth|")):
    shown = axis.imshow(data / noise, origin="lower", norm=ImageNormalize(vmin=0, vmax=5, stretch=AsinhStretch(0.2)))
    axis.set(title=title, xticks=[], yticks=[])
figure.colorbar(shown, ax=axes[:2], label="in units of the degraded image's noise")
edges = np.linspace(-5, 5, 51)
for part, label in ((good, "all pixels"), (bright, "bright pixels")):
    axes[2].hist((error / sigma)[part], bins=edges, density=True, histtype="step", label=label)
axes[2].plot(edges, np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi), color="0.5", lw=1, label="unit Gaussian")
axes[2].set(xlabel="error / predicted $\\sigma$", yscale="log", ylim=(1e-4, 1))
axes[2].legend(fontsize="small")

# %%
# Diagnostics
# -----------
# The result, blurred again, must agree with the data (left: local chi squared). ``ensemble=True`` restores the image
# turned and mirrored in eight ways: where the scatter is large beside the uncertainty (right), the detail depends on
# how the image lies on the grid. Neither can see detail that was invented below the resolution of the data, alike in
# all eight. ``out of range`` is 0 where the image is like those of the training.

report = restorers["nafnet"].diagnose(degraded, restored["nafnet"], ensemble=True)
print(report.summary())
figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.9), layout="constrained")
maps = {"local chi squared": report.chi2[0], "ensemble spread / predicted $\\sigma$": report.ensemble_spread[0] / sigma}
for axis, (title, data), top in zip(axes, maps.items(), (2, 1), strict=True):
    shown = axis.imshow(data, origin="lower", vmin=0, vmax=top)
    axis.set(title=title, xticks=[], yticks=[])
    figure.colorbar(shown, ax=axis)

# %%
# Out of range
# ------------
# A blur of 15 pixels is far beyond what the network has seen. It answers all the same, as networks do; the library says
# that the answer is worth little, and what to do.

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", OutOfRangeWarning)
    far = Restorer("nafnet", psf=15.0)(degraded[:128, :128])
for warning in caught:
    print(f"{warning.category.__name__}: {warning.message}")
print(far.meta["AGINFO"])
