"""
A mosaic larger than memory
===========================

A survey's mosaic is restored from file to file, by the workers of a dask cluster. The run is stopped in the middle,
goes on where it was, and ends with the same file as if nothing had happened. Do the places where the windows were cut
show?
"""

# %%
# A mosaic on disk
# ----------------
# Here it has 3072 x 3072 pixels, so that the page builds in a minute; nothing below changes at 32,768 x 32,768. It is
# written row by row, as it would have to be if it did not fit into memory.

import json
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from astropy.io import fits
from astropy.stats import mad_std
from astropy.visualization import AsinhStretch, ImageNormalize
from distributed import Client

from astrogan import Restorer, read_image
from astrogan.exceptions import AstroganWarning
from astrogan.simulate.field import simulate_field

warnings.simplefilter("ignore", AstroganWarning)
SIZE, FWHM = 3072, 3.5
folder = Path(tempfile.mkdtemp())
field = simulate_field((1024, 1024), bands=("r",), seed=5)
sky = np.nan_to_num(field.truth_images["r"].data)
noise = float(mad_std(field.images["r"].data - field.truth_images["r"].data))  # of the sky
rng = np.random.default_rng(1)
header = field.images["r"].wcs.to_header()
with fits.StreamingHDU(
    folder / "mosaic.fits",
    fits.Header({"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": SIZE, "NAXIS2": SIZE, "BUNIT": "nmgy"}) + header,
) as stream:
    for row in range(SIZE):
        values = np.tile(sky[row % 1024], 3) + rng.normal(0, noise, SIZE)
        stream.write(values.astype(">f4"))
print(f"{(folder / 'mosaic.fits').stat().st_size / 1e6:.0f} MB")

# %%
# A run that is stopped
# ---------------------
# Any dask client will do: of this process, as here, of all cores of a machine (``LocalCluster``), or of a cluster. The
# function that is told about the progress ends the run when half of the tiles are done; a power cut would do the same.
# What is left is a folder with the image so far and a journal.


def stop_at_half(done, total):
    """What a power cut does."""
    if done >= total / 2:
        raise KeyboardInterrupt


options = {"psf": FWHM, "iterations": 20}
client = Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None)
try:
    Restorer("richardson-lucy", progress=stop_at_half, **options).process(
        folder / "mosaic.fits", folder / "restored.fits", client=client
    )
except KeyboardInterrupt:
    print("stopped;", sorted(path.name for path in folder.iterdir()))
partial = folder / "restored.fits.partial"
lines = [json.loads(line) for line in (partial / "journal.jsonl").read_text().splitlines()]
print("the run is of", {key: lines[0][key] for key in ("tiles", "reading")})
print(len(lines) - 1, "pieces of it are done")
half = fits.getdata(partial / "image.fits")[::8, ::8].copy()

# %%
# The same call again
# -------------------
# It finds the journal, checks that the input, the method and its options are the same, and does the rest.

seen = []
restorer = Restorer("richardson-lucy", progress=lambda done, total: seen.append(done), **options)
restorer.process(folder / "mosaic.fits", folder / "restored.fits", client=client)
client.close()
print(f"began at tile {seen[0]}, ended at tile {seen[-1]};", sorted(path.name for path in folder.iterdir()))
whole = fits.getdata(folder / "restored.fits", memmap=True)[::8, ::8]

figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
norm = ImageNormalize(vmin=-2 * noise, vmax=100 * noise, stretch=AsinhStretch(0.05))
for axis, image, title in ((axes[0], half, "when it was stopped"), (axes[1], whole, "at the end")):
    shown = axis.imshow(image, origin="lower", norm=norm, cmap="gray", extent=(0, SIZE, 0, SIZE))
    axis.set(title=title, xlabel="x (pixels)")
axes[0].set_ylabel("y (pixels)")
figure.colorbar(shown, ax=axes, label="flux (nmgy a pixel)", shrink=0.85)
plt.show()

# %%
# Do the cuts show?
# -----------------
# Windows and tiles were cut with as much context as an output pixel depends on. The same file is made once more in this
# process with windows of another size: it has the same bytes. And a part that lies across many borders is restored in
# one call: where both know enough of the surroundings, the difference is that of rounding.

again = Restorer("richardson-lucy", **options)
again.process(folder / "mosaic.fits", folder / "again.fits", tile=900)
print("the same bytes:", (folder / "again.fits").read_bytes() == (folder / "restored.fits").read_bytes())

part = np.s_[900:1700, 1300:2100]
before, after = (read_image(folder / name, section=part) for name in ("mosaic.fits", "restored.fits"))
one_piece = Restorer("richardson-lucy", tile=800, **options)(before)
rim = 60
difference = (after.data - one_piece.data)[rim:-rim, rim:-rim]
print(f"largest difference: {np.abs(difference).max():.1e}, of a peak of {after.data.max():.1f} nmgy")

figure, axes = plt.subplots(1, 3, figsize=(11, 4.1), layout="constrained")
cut = np.s_[200:500, 250:550]
for axis, image, title in ((axes[0], before, "mosaic"), (axes[1], after, "restored")):
    shown = axis.imshow(image.data[cut], origin="lower", norm=norm, cmap="gray")
    axis.set(title=title, xlabel="x (pixels)")
figure.colorbar(shown, ax=axes[:2], label="flux (nmgy a pixel)", shrink=0.8)
scale = np.percentile(np.abs(difference), 99.9) / noise
shown = axes[2].imshow(difference / noise, origin="lower", cmap="RdBu_r", vmin=-scale, vmax=scale)
axes[2].set(title="less one piece", xlabel="x (pixels)")
figure.colorbar(shown, ax=axes[2], label="difference (of the noise of a pixel)", shrink=0.8)
axes[0].set_ylabel("y (pixels)")
plt.show()

# %%
# The difference has no lines in it, and is small against the noise almost everywhere. What is left comes from the sky
# level, which the small call measures on its own 800 pixels and the mosaic's run on patches of the whole field: give
# ``background=`` where you know it.
#
# From the shell the same is ``astrogan restore mosaic.fits -o restored.fits --mosaic -b richardson-lucy --psf 3.5``,
# with ``--scheduler tcp://...`` for a cluster; :doc:`/user_guide/mosaics` has more.
