"""
Your own survey in ten lines
============================

An image in each band says what a survey is: how large its pixels are, how wide its PSF, how deep it is, what its noise
is like. From then on any image can be shown as that survey would have seen it.
"""

# %%
# Two images of a survey
# ----------------------
# Your own would be at hand. Here they are made: a field of galaxies and stars in bad seeing, with noise that is
# correlated as resampling leaves it, in counts with a zero point in the header. Nothing else is written into the files:
# no PSF and no noise map.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.visualization import AsinhStretch, ImageNormalize
from scipy.ndimage import gaussian_filter

from astrogan import Translator
from astrogan.backends.classic.correlated_noise import CorrelatedNoise
from astrogan.image.psf import psf_fwhm
from astrogan.metrics import noise_autocorrelation, noise_std
from astrogan.simulate.field import simulate_field
from astrogan.simulate.surveys import Survey, simulate_pair

folder = tempfile.TemporaryDirectory()
files, scatter = {}, {"g": 0.004, "r": 0.006}  # nanomaggies a pixel
true_fwhm = {"g": 1.5, "r": 1.3}  # arcsec
rng = np.random.default_rng(7)
field = simulate_field(
    (300, 300), ("g", "r"), 0.3, seed=7, fwhm=true_fwhm, depth=27.0, n_stars=12, saturated_star=False, bad_column=False
)
for band, image in field.images.items():
    sky = CorrelatedNoise().sample((1, 300, 300), sigma=scatter[band], rng=rng)[0]
    header = field.wcs.to_header()
    header.update({"BUNIT": "adu", "MAGZERO": 27.5, "FILTER": band})
    files[band] = Path(folder.name) / f"mine_{band}.fits"
    fits.writeto(files[band], (100 + 100 * (image.data + sky)).astype(np.float32), header)

# %%
# The survey, and an image as it would be there
# ---------------------------------------------
# These are the lines that the title promises. `Survey.from_fits <astrogan.simulate.surveys.Survey.from_fits>` measures
# what it is not told: pixel scale from the WCS, PSF from the stars, zero point from the header, noise from the blank
# sky. The class given as ``noise_model`` is fitted to that sky. The image to translate is a simulated one of CFHTLS, in
# g and r.

mine = Survey.from_fits("mine", files, noise_model=CorrelatedNoise)
pair = simulate_pair(913, "cfhtls", mine, bands=("g", "r"), shapes=((160, 160), (100, 100)), colour_terms=False)
cfhtls = dict(zip("gr", pair.first.to_ccd(), strict=True))
seeing = dict(zip("gr", pair.first.psf, strict=True))
as_mine = Translator("psf-matching", target=mine, psf=seeing)(cfhtls, rng=1)

# %%
# Was it measured well?
# ---------------------
# The files know nothing of what they were made with, so this is a test: seeing and scatter as measured, and as put in.
# The correlation is that of the noise of direct neighbours. Photon noise of bright sources needs the gain, which these
# headers lack; ``mine.references`` says what was assumed instead.

rows = []
for one in mine.filters:
    lag = one.noise_model.autocorrelation(1)[1, 2]
    rows.append((one.name, one.fwhm, true_fwhm[one.name], one.sigma, scatter[one.name], lag, one.depth()))
names = ("band", "FWHM [arcsec]", "put in", "noise [nmgy]", "made with", "correlation", "5 sigma depth [mag]")
table = Table(rows=rows, names=names)
for column in table.colnames[1:]:
    table[column].info.format = ".4f" if column in ("noise [nmgy]", "made with") else ".2f"
table.pprint(max_width=-1)
print(f"correlation put in: {CorrelatedNoise().autocorrelation(1)[1, 2]:.2f}")
print(*mine.references, sep="\n")

# %%
# One galaxy, three times
# -----------------------
# Left: as CFHTLS sees it. Middle: translated. Right: the same sky through the new survey's seeing and pixels, noise
# drawn anew: what the translation should look like. Colour scales are surface brightness, the same for all
# three; faint neighbours and the outskirts go under in the noise, and no choice of colours brings them back.

panels = {"CFHTLS": (cfhtls, 0.187), "translated": (as_mine, 0.3), "observed by mine": (None, 0.3)}
figure, axes = plt.subplots(2, 3, figsize=(9.4, 6.2), layout="constrained")
for line, (band, axis_row) in enumerate(zip("gr", axes, strict=True)):
    sigma = mine[band].sigma / 0.3**2
    norm = ImageNormalize(vmin=-3 * sigma, vmax=100 * sigma, stretch=AsinhStretch(0.1))
    for axis, (title, (images, scale)) in zip(axis_row, panels.items(), strict=True):
        data = images[band].data if images else pair.second.data[line]
        half = scale * data.shape[0] / 2
        shown = axis.imshow(data / scale**2, origin="lower", norm=norm, extent=(-half, half, -half, half))
        axis.set_title(f"{title}, {band}", fontsize=10)
    axis_row[0].set_ylabel("arcsec")
    figure.colorbar(shown, ax=axis_row, label=f"{band} [nmgy / arcsec$^2$]", format="%g", ticks=[0, 0.5, 1, 2, 4])
for axis in axes[1]:
    axis.set_xlabel("arcsec")
for axis in axes.flat:
    axis.label_outer()

# %%
# Is it the survey's?
# -------------------
# Three things can be tested. A star: the PSF of the image, translated, ought to be as wide as the survey's. Light: the
# sum over the galaxies, without noise, against that before. Noise: scatter and correlation in the blank parts of the
# translated image and of the survey's own file.

rows = []
for line, band in enumerate("gr"):
    star = CCDData(np.pad(seeing[band], 40), unit="nmgy", meta={"BAND": band})
    plain = Translator("psf-matching", target=mine, psf=seeing[band], noise=False)
    width = 0.3 * psf_fwhm(plain(star, pixel_scale=0.187).data)
    light = plain(cfhtls[band]).data.sum() / cfhtls[band].data.sum()
    dark = gaussian_filter(as_mine[band].data, 3) < mine[band].sigma / 2
    own = 10 ** (0.4 * (22.5 - 27.5)) * (fits.getdata(files[band]).astype(float) - 100)
    empty = field.truth[line] < 0.2 * mine[band].sigma
    for name, image, sky in (("translated", as_mine[band].data, dark), ("the file", own, empty)):
        lag = noise_autocorrelation(image, lags=((0, 1),), mask=~sky)
        values = (width, light) if name == "translated" else (mine[band].fwhm, np.nan)
        rows.append((band, name, *values, noise_std(image, mask=~sky), float(np.ravel(lag)[0])))
table = Table(
    rows=rows, names=("band", "image", "FWHM of a star", "light after / before", "noise [nmgy]", "correlation")
)
for column in table.colnames[2:]:
    table[column].info.format = ".3f"
table.pprint(max_width=-1)

folder.cleanup()
