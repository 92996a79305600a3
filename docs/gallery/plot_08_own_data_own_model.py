"""
Your own data, your own model
=============================

A folder of FITS images becomes a network for images like them: a recipe, half a minute of training, weights with a
card, a restored image. Then the questions that matter: is it better than a filter, does its uncertainty hold, and does
it say so when an image is not like those of the training?
"""

# %%
# A folder of images
# ------------------
# Ninety stamps of one band in counts, with a WCS and nothing else, as they may lie on your disk. Here they are drawn by
# `~astrogan.train.sources.SimulatedStream`, which gives a truth to compare with; on your data there is none.

import tempfile
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import Table
from astropy.visualization import AsinhStretch, ImageNormalize
from astropy.wcs import WCS
from scipy.special import erf

from astrogan import Degrader, Restorer
from astrogan.exceptions import OutOfRangeWarning
from astrogan.metrics import psnr
from astrogan.train import fit
from astrogan.train.sources import SimulatedStream
from astrogan.train.split import part_of
from astrogan.weights import read_card

torch.set_num_threads(1)
work = tempfile.TemporaryDirectory()
stamps = Path(work.name) / "stamps"
stamps.mkdir()
wcs = WCS(naxis=2)
wcs.wcs.ctype, wcs.wcs.cdelt, wcs.wcs.crval = ("RA---TAN", "DEC--TAN"), (-0.2 / 3600, 0.2 / 3600), (150.0, 2.0)
SKY, NOISE = 200.0, 4.0  # counts
galaxies = SimulatedStream(8, 80, psf_fwhm=(2.6, 3.4), radius=(0.8, 5.0), flux=(500.0, 20_000.0))
noise = np.random.default_rng(8)
truths = {}
for number in range(90):
    name = f"galaxy_{number:03d}"
    truths[name] = galaxies.load(number).data[0]
    counts = SKY + truths[name] + NOISE * noise.normal(size=truths[name].shape)
    header = wcs.to_header()
    header.update({"BUNIT": "adu", "FILTER": "r"})
    fits.writeto(stamps / f"{name}_r.fits", counts.astype(np.float32), header)
print(len(truths), "files, for the test:", sum(part_of(name) == "test" for name in truths))

# %%
# A recipe
# --------
# All that the training depends on, in a small file. ``degradation`` is what the network learns to undo: blurs of 2 to 4
# pixels on top of the seeing, noise up to four times that of the stamps. Write there what your images suffer from,
# and somewhat more. ``name`` says how a file's name gives the object's, so that all images of one object fall on the
# same side of the split. ``origin`` and ``licence`` go into the card.

recipe = Path(work.name) / "my-survey.toml"
recipe.write_text("""\
name = "my-survey"
summary = "stamps of my survey in r"
task = "restoration"
seed = 1
steps = 160
batch = 4
crop = 64
epoch_steps = 80
validate_every = 1
validation_images = 9

[network]
bands = 1
widths = [16, 32]
blocks = [1, 1, 1]

[training]
loss = "linear"
aperture_weight = 0.3

[degradation]
kind = "physical"
fwhm = [2.0, 4.0]
noise_ratio = [1.0, 4.0]

[[data]]
kind = "fits"
path = "stamps"
name = "(.*)_r"
origin = "my survey, simulated"
licence = "CC0-1.0"
""")

# %%
# Train
# -----
# In a terminal this is ``astrogan train my-survey.toml --data . --out run``. A hundred and sixty steps are a taste; the
# networks that come with astrogan had thousands. ``run/metrics.csv`` has the PSNR on the validation stamps as it rose,
# beside the best single Wiener filter's. A network that does not get above it has learned nothing yet.

start = time.monotonic()
weights = fit(recipe, data=work.name, out=Path(work.name) / "run")
print(f"{time.monotonic() - start:.0f} s; files: {', '.join(sorted(path.name for path in weights.parent.iterdir()))}")
history = Table.read(weights.parent / "metrics.csv", format="ascii.csv")
history = history["step", "val/psnr", "val/identity", "val/wiener", "val/coverage68"]
history.pprint(max_width=-1)

# %%
# The card
# --------
# It travels with the weights and says what they are for. ``ranges`` decides when the network warns; ``scale`` is the
# factor by which its errors had to be multiplied to be right on the validation stamps; ``objects`` says how little it
# has seen.

card = read_card(weights)
for key in ("name", "backend", "ranges", "calibration", "data", "licence"):
    print(f"{key}: {card[key]}")

# %%
# Is it better than a filter?
# ---------------------------
# The stamps of the test part, which no step has seen, blurred by 3 pixels and with twice their noise. ``wiener``
# tunes itself on the image; ``nafnet-linear`` comes with astrogan and knows other galaxies. PSNR is against the
# noise-free truth, over the range of the image, in the mean over the stamps.

blur, tests = 3.0, [name for name in truths if part_of(name) == "test"]
degrade = Degrader(psf=blur, noise=2.0, match=False)
restorers = {
    "identity": Restorer("identity", psf=blur),
    "wiener": Restorer("wiener", psf=blur),
    "nafnet-linear": Restorer("nafnet", weights="nafnet-linear", psf=blur),
    "my-survey": Restorer("nafnet", weights=weights, psf=blur),
}


def stamp(name):
    """A stamp without its sky, with the noise known."""
    data = fits.getdata(stamps / f"{name}_r.fits").astype(float) - SKY
    return CCDData(data, unit="adu", wcs=wcs, uncertainty=StdDevUncertainty(np.full(data.shape, NOISE)))


originals = {name: stamp(name) for name in tests}
degraded = {name: degrade(image, rng=k) for k, (name, image) in enumerate(originals.items())}
restored = {label: {n: restorer(image) for n, image in degraded.items()} for label, restorer in restorers.items()}
table = Table(names=("restorer", "PSNR [dB]", "worst stamp", "flux ratio", "reduced chi2"), dtype=(str, *[float] * 4))
for label, images in restored.items():
    scores = [psnr(truths[n], images[n].data, data_range=np.ptp(truths[n])) for n in tests]
    ratio = np.median([images[n].data.sum() / truths[n].sum() for n in tests])
    chi2 = np.mean([restorers[label].diagnose(degraded[n], images[n]).reduced_chi2 for n in tests])
    table.add_row((label, np.mean(scores), np.min(scores), ratio, chi2))
for column in table.colnames[1:]:
    table[column].info.format = ".3f" if column in ("flux ratio", "reduced chi2") else ".2f"
table.pprint(max_width=-1)

# %%
# Half a minute is enough to be better than the filter, and not to be as good as ``nafnet-linear``, which is at home
# here: a quarter of what it learned from were galaxies of the same program, thousands of them. Where it fits your
# images, take it. A network of your own is for what it does not know: several bands together, other objects, other
# noise.
#
# One stamp. Bottom: what is left against the truth, in units of the degraded image's noise.

bright = max(tests, key=lambda name: truths[name].sum())
sigma = float(np.median(degraded[bright].uncertainty.represent_as(StdDevUncertainty).array))
norm = ImageNormalize(vmin=-2 * sigma, vmax=truths[bright].max(), stretch=AsinhStretch(0.05))
figure, axes = plt.subplots(2, 5, figsize=(11.5, 4.9), layout="constrained")
panels = {"truth": truths[bright], **{label: images[bright].data for label, images in restored.items()}}
for (top, bottom), (label, data) in zip(axes.T, panels.items(), strict=True):
    flux = top.imshow(data, origin="lower", norm=norm)
    top.set_title(label)
    if label != "truth":
        left = bottom.imshow((data - truths[bright]) / sigma, origin="lower", vmin=-8, vmax=8, cmap="RdBu_r")
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
axes[1, 0].set_axis_off()
figure.colorbar(flux, ax=axes[0], label="flux [adu / pixel]", ticks=[0, 30, 100, 300, 1000], format="%g")
figure.colorbar(left, ax=axes[1], label="(image $-$ truth) / $\\sigma$")

# %%
# Does the uncertainty hold?
# --------------------------
# Part of the pixels whose error is below so many predicted standard deviations, against what a Gaussian has. Left: all
# pixels of the test, most of them sky; right: those where the truth is above five times the noise. Above the line the
# prediction is too cautious, below it too sure of itself. The dashed line compares with the original *with* its noise,
# which is all that you can do with your own stamps: these have no truth. The network's sigma contains the noise of the
# original, as its training did: in the sky it is right against the original and far too cautious against the truth. The
# uncertainty of ``wiener`` is that of the noise alone, and says nothing of what the filter leaves out of bright pixels.

levels = np.linspace(0.1, 3, 30)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for axis, title in zip(axes, ("all pixels", "bright pixels"), strict=True):
    for label, colour in (("wiener", "tab:orange"), ("my-survey", "tab:blue")):
        for against, style in (("truth", "-"), ("original", "--")):
            ratios = []
            for name in tests:
                other = truths[name] if against == "truth" else originals[name].data
                error = np.abs(restored[label][name].data - other)
                ratio = error / restored[label][name].uncertainty.represent_as(StdDevUncertainty).array
                ratios.append(ratio[truths[name] > (5 * sigma if title == "bright pixels" else -np.inf)])
            inside = np.mean(np.concatenate(ratios)[:, None] < levels, axis=0)
            axis.plot(levels, inside, style, color=colour, label=f"{label}, against the {against}")
            print(f"{title}, {label}, against the {against}: {np.interp(1, levels, inside):.3f} within one sigma")
    axis.plot(levels, erf(levels / np.sqrt(2)), color="0.4", lw=1, label="Gaussian")
    axis.set(xlabel="error / predicted $\\sigma$, at most", title=title, ylim=(0, 1.02))
axes[0].set_ylabel("part of the pixels")
axes[1].legend(fontsize="small")

# %%
# Where it has never been
# -----------------------
# A blur of eight pixels is twice the widest of the training. The network answers, as networks do; the warning says what
# the answer is worth, and the value stays in the result's header.

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", OutOfRangeWarning)
    far = Restorer("nafnet", weights=weights, psf=8.0)(degraded[bright])
for warning in caught:
    print(f"{warning.category.__name__}: {warning.message}")
print(far.meta["AGINFO"])

# %%
# What no number here tells
# -------------------------
# The test stamps are like those of the training, down to the program that drew them. On other galaxies, another noise
# or a wrong PSF the table would look different, and the card cannot know. Train longer and on more objects than here,
# keep a part that you never look at, and read :doc:`/user_guide/uncertainty` before you measure on what comes out.

work.cleanup()
