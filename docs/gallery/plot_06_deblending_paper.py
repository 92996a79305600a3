"""
The deblending paper's pipeline
===============================

Usaid, Ahmed & Jamal (2019) put one galaxy over another, cut them apart again, and let a generative network fill in what
the cut had taken. Here that pipeline runs step by step, in the order of the paper's figures. Then the same network, and
that of Reiman & Goehre (2019), meet a blend as the sky makes them, where light adds up.
"""

# %%
# Two galaxies, a blend, two segments
# -----------------------------------
# Where ASTROGAN_DATA names the folder of real images, two stamps of the Galaxy Zoo challenge; elsewhere two simulated
# galaxies. The second is moved to the right by 50 pixels, and in each pixel the brighter of both stays: in this rule
# light does *not* add up, one galaxy hides the other. The segments are cut by the inverse of the rule, which needs to
# know both galaxies, and noise is added. (Figures 1, 2 and 19 to 23 of the paper.)

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from astropy.table import Table, vstack
from astropy.visualization import AsinhStretch, ImageNormalize

from astrogan import Deblender
from astrogan.demo_usaid2019 import run_pipeline
from astrogan.image.stretch import GalaxyGAN2017Stretch
from astrogan.nn.dcgan import CompletionGAN
from astrogan.simulate.blends import simulate_blend
from astrogan.train.sources import StampTar
from astrogan.weights import load_weights

torch.set_num_threads(1)
galaxies = ()
if os.environ.get("ASTROGAN_DATA"):
    stamps = StampTar(Path(os.environ["ASTROGAN_DATA"]) / "galaxyzoo_kaggle" / "images.tar", 424)
    galaxies = [np.clip(GalaxyGAN2017Stretch().forward(stamps.load(number).data), 0, 1) for number in (5, 12)]
with tempfile.TemporaryDirectory() as folder:
    encoder = run_pipeline(*galaxies, out=Path(folder) / "encoder")
    inversion = run_pipeline(*galaxies, out=Path(folder) / "inversion", completion="inversion", steps=100)


def show(axis, picture, title):
    """A picture (3, y, x) from 0 to 1, red first."""
    axis.imshow(np.clip(np.moveaxis(picture, 0, -1), 0, 1), interpolation="nearest")
    axis.set_title(title, fontsize=10)
    axis.set(xticks=[], yticks=[])


def middle(picture, part=256 / 424):
    """The part of a picture that the network will see."""
    low, high = (round(picture.shape[1] * (0.5 + sign * part / 2)) for sign in (-1, 1))
    return picture[:, low:high, low:high]


figure, axes = plt.subplots(1, 5, figsize=(12, 2.8), layout="constrained")
steps = ("preblended_1", "preblended_2", "blended", "segmented_1", "segmented_2")
for axis, step in zip(axes, steps, strict=True):
    show(axis, middle(encoder.images[step]), step.replace("_", " "))

# %%
# Completed by the network
# ------------------------
# The generator makes a picture of 64 pixels from a hundred random numbers. The paper does not say how a segment gets
# into it, so there are two readings: an ``encoder`` finds the numbers in one go, ``inversion`` searches for them by
# gradient descent until the known pixels agree. Size, place, orientation and colour come out about right. The arms do
# not: what the generator cannot make is not in the completion, even where the segment shows it. (Figures 12 to 15, 24
# and 25.)

figure, axes = plt.subplots(2, 3, figsize=(7.6, 5.4), layout="constrained")
for number, line in zip((1, 2), axes, strict=True):
    show(line[0], middle(encoder.images[f"preblended_{number}"]), f"galaxy {number}, before")
    for axis, (name, result) in zip(line[1:], {"encoder": encoder, "inversion": inversion}.items(), strict=True):
        rows = result.table[(result.table["galaxy"] == number) & (result.table["method"] == "deblended")]
        show(axis, result.images[f"deblended_{number}"], f"{name}: {rows['psnr'][0]:.1f} dB")

# %%
# Against the galaxies before they were blended: PSNR over all pixels and over the hidden ones. ``segmented`` is the cut
# picture as it is, with zeros in the hole. ``mean fill`` puts the mean of the known pixels there, and is what the
# network has to beat. ``deblended + known`` keeps the pixels that were known, which the published generator makes anew.

encoder.table["completion"], inversion.table["completion"] = "encoder", "inversion"
learned = ["deblended" in name for name in inversion.table["method"]]
vstack([encoder.table, inversion.table[learned]], metadata_conflicts="silent")[
    "galaxy", "completion", "method", "psnr", "psnr_hidden", "ssim"
].pprint(max_width=-1, max_lines=-1)

# %%
# Galaxies from noise
# -------------------
# What the generator believes galaxies to be: pictures from random numbers. It has learned that they are round or long,
# in the middle, and mostly yellowish. There are no arms, and coloured specks that no galaxy has. Nothing that it
# completes can be better than that. (Figures 8 to 11 and 16 to 18.)

stored = load_weights("usaid2019-stable")
gan = CompletionGAN(**stored.card["architecture"]).eval()
gan.load_state_dict(stored.tensors)
z = torch.randn(12, gan.generator.latent, generator=torch.Generator().manual_seed(2019))
with torch.inference_mode():
    invented = gan.generator(z).numpy() / 2 + 0.5
figure, axes = plt.subplots(2, 6, figsize=(9, 3.2), layout="constrained")
for axis, picture in zip(axes.flat, invented, strict=True):
    show(axis, picture, "")

# %%
# Blends in which light adds up
# -----------------------------
# In the sky nothing is hidden: both galaxies shine in every pixel, and have to share it. The same networks as
# `~astrogan.Deblender`, on twelve simulated blends of two or three galaxies in three bands, all with the true
# positions. ``watershed`` gives each pixel to one source. ``hybrid`` is the default, with templates that know the PSF.

blends = [simulate_blend(seed, sources=2 + seed % 2, stars=0.0, snr=(30.0, 1000.0)) for seed in range(12)]
shown = 0  # of the blends, in the figure below
names = ("watershed", "branched-gan", "usaid2019", "ratio-net", "hybrid")

results = {name: [Deblender(name)(scene.images, scene.positions) for scene in blends] for name in names}
rows = []
for name, found in results.items():
    error = []
    for scene, result in zip(blends, found, strict=True):
        true = scene.truth.sum(axis=(2, 3))
        flux = np.array([result.catalog[f"flux_{band}"] for band in scene.bands]).T
        error.append(np.abs(flux / true - 1))
    error = np.concatenate(error)
    rows.append((name, len(error), np.median(error), np.mean(error > 0.5)))
table = Table(rows=rows, names=("backend", "sources", "median |dF/F|", "part off by half"))
table["median |dF/F|"].info.format = table["part off by half"].info.format = ".3f"
table.pprint(max_width=-1)

# %%
# One of them, in r: the truth, and each method's share of the image, noise included. No light is lost, since the
# operator divides it; but whose it is goes wrong. ``watershed`` draws a line. The windows of ``branched-gan`` show as
# corners. All give the first source part of the clump that is the second's. A picture that looks like a galaxy is not a
# measurement of one: the networks that fill in are far behind those that share.

scene = blends[shown]
figure, axes = plt.subplots(2, 6, figsize=(12.4, 4.5), layout="constrained")
r = scene.bands.index("r")
norm = ImageNormalize(vmin=-2, vmax=scene.truth[:, r].max(), stretch=AsinhStretch(0.05))
for number, line in enumerate(axes):
    pictures = {"truth": scene.truth[number, r]}
    pictures |= {name: found[shown].full(number).data[r] for name, found in results.items()}
    total = pictures["truth"].sum()
    for axis, (name, picture) in zip(line, pictures.items(), strict=True):
        flux = axis.imshow(picture[12:-12, 12:-12], origin="lower", norm=norm)
        axis.set(xticks=[], yticks=[], title=name if number == 0 else "")
        axis.set_xlabel(f"flux {picture.sum() / total:.2f} of the true", fontsize=9)
    line[0].set_ylabel(f"source {number + 1}")
figure.colorbar(flux, ax=axes, label="r [noise of a pixel]", format="%g", shrink=0.9, ticks=[0, 2, 5, 10, 20])

# %%
# :doc:`/reproduction/usaid2019` has each claim of the paper beside a measurement, on hundreds of pairs.
