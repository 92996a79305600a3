"""The part ``field`` of the deblending benchmark: time and memory on a crowded field, beside photutils."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from astrogan.bench._linear_common import as_table
from astrogan.exceptions import AstroganError, MissingDependencyError

__all__ = ["PEER", "crowded_field", "field_table", "photutils_catalogs"]

PEER = "photutils"
_DENSITY = 2000 / 2048**2  # sources a pixel
_FWHM, _STAMP, _STAMPS = 4.0, 64, 200
_BANDS = ("g", "r", "i")
_WARM = 256  # edge of the part on which imports, caches and threads are made before it counts
_LONGEST = 3600  # seconds


def crowded_field(size, seed=0):
    """A field of stars and galaxies in three bands: a few hundred drawn once, and placed over and over.

    Parameters
    ----------
    size : int
        Edge in pixels.
    seed : int

    Returns
    -------
    data, variance, psf : `numpy.ndarray`
        (band, y, x) float32, sky-subtracted, noise of one; (band, k, k).
    count : int
        Sources.
    """
    rng = np.random.default_rng(seed)
    stamps = _stamps(rng)
    count = max(1, round(_DENSITY * size**2))
    half = _STAMP // 2
    frame = np.zeros((len(_BANDS), size + _STAMP, size + _STAMP), np.float32)
    for _ in range(count):
        stamp = stamps[rng.integers(len(stamps))][:, :: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
        if rng.random() < 0.5:
            stamp = stamp.transpose(0, 2, 1)
        # Half of the sources stand in groups, so that there is something to divide.
        if rng.random() < 0.5 or _ == 0:
            y, x = rng.integers(0, size, 2)
        else:
            y, x = np.clip((y, x) + np.rint(rng.normal(0, 2 * _FWHM, 2)).astype(int), 0, size - 1)
        snr = np.exp(rng.uniform(np.log(10), np.log(500)))
        frame[:, y : y + _STAMP, x : x + _STAMP] += np.float32(snr) * stamp
    truth = frame[:, half : half + size, half : half + size]
    gain = 20.0
    variance = 1 + truth / np.float32(gain)
    data = truth + rng.standard_normal(truth.shape, np.float32) * np.sqrt(variance)
    return data, variance.astype(np.float32), _psf(), count


def _psf():
    from astrogan.image.psf import moffat_psf

    return np.stack([moffat_psf(_FWHM)] * len(_BANDS)).astype(np.float32)


def _stamps(rng):
    """(stamp, band, y, x), each with a matched-filter S/N of one in white noise of one."""
    try:
        import galsim
    except ImportError as error:
        raise MissingDependencyError("the field needs GalSim: pip install 'astrogan[sim]'") from error
    psf = galsim.Moffat(beta=3.0, fwhm=_FWHM)
    stamps = np.empty((_STAMPS, len(_BANDS), _STAMP, _STAMP), np.float32)
    for k in range(_STAMPS):
        profile = psf
        if k % 5:
            index, radius = rng.choice((1.0, 1.5, 2.5, 4.0)), np.exp(rng.uniform(np.log(1.5), np.log(5.0)))
            shape = galsim.Shear(g=rng.uniform(0, 0.5), beta=rng.uniform(0, np.pi) * galsim.radians)
            profile = galsim.Convolve(galsim.Sersic(index, half_light_radius=radius).shear(shape), psf)
        image = profile.drawImage(nx=_STAMP, ny=_STAMP, scale=1.0, offset=tuple(rng.uniform(-0.5, 0.5, 2))).array
        colours = np.exp(rng.normal(0, 0.3, len(_BANDS)))[:, None, None]
        stamps[k] = np.maximum(image, 0) * colours
        stamps[k] /= np.sqrt(np.sum(stamps[k] ** 2))
    return stamps


def photutils_catalogs(observation):
    """photutils' own way: detect, deblend, and a catalog in each band.

    Parameters
    ----------
    observation : `~astrogan.api.Observation`

    Returns
    -------
    list of `~astropy.table.QTable`
        One a band.
    """
    from photutils.segmentation import SegmentationImage, SourceCatalog

    from astrogan.bench._deblending_rows import photutils_segments

    labels, _ = photutils_segments(observation)
    if not labels.any():
        return []
    segments = SegmentationImage(labels)
    errors = np.sqrt(observation.variance)
    return [SourceCatalog(p, segments, error=e).to_table() for p, e in zip(observation.data, errors, strict=True)]


# ---- each row in a process of its own -------------------------------------------------------------------------------


def field_table(rows, size, *, seed=0, progress=None):
    """Seconds and peak memory of each row, and of photutils, in one run.

    Parameters
    ----------
    rows : list of Row
    size : int
        Edge of the field in pixels.
    seed : int
    progress : callable, optional
        Called with a line of text.

    Returns
    -------
    `~astropy.table.Table`
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field.npz"
        data, variance, psf, count = crowded_field(size, seed)
        np.savez(path, data=data, variance=variance, psf=psf)
        lines = []
        for name in (PEER, *(row.name for row in rows)):
            lines.append({"row": name} | _measured(path, name))
            if progress is not None:
                progress(f"field  {name}  {lines[-1].get('seconds', np.nan):.1f} s")
    peer = lines[0]
    for line in lines:
        for measure in ("seconds", "megabytes"):
            line[f"{measure}_ratio"] = line.get(measure, np.nan) / peer.get(measure, np.nan)
    names = ("row", "sources", "seconds", "seconds_ratio", "megabytes", "megabytes_ratio", "images", "why")
    blank = {name: "" if name in ("row", "why") else np.nan for name in names}
    formats = {"sources": ".0f", "megabytes": ".0f", "images": ".1f"}
    caption = _CAPTION.format(size=size, count=count)
    return as_table([blank | {k: v for k, v in line.items() if k in names} for line in lines], caption, formats)


_CAPTION = (
    "{size} x {size} pixels in three bands with {count} stars and galaxies, half of them in groups; one process a row, "
    "the second call of each counts, one core for torch and BLAS. sources: that the row found; seconds: whole call "
    "(detection, templates, sources, catalog); megabytes: peak of the process beyond what it held before the call, "
    "the result included; images: the same in float32 cubes of the field; _ratio: over photutils' own (detect_sources, "
    "deblend_sources, SourceCatalog in each band), in the same run."
)


def _measured(path, name):
    command = [sys.executable, "-m", "astrogan.bench._deblending_field", str(path), name]
    # With glibc: freed blocks go back at once, so that what is counted is in use and not kept for later.
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    try:
        result = subprocess.run(  # noqa: S603 - our own code
            command, env=environment, capture_output=True, text=True, check=True, timeout=_LONGEST
        )
    except subprocess.TimeoutExpired:
        return {"why": f"more than {_LONGEST} s"}
    except subprocess.CalledProcessError as error:
        return {"why": (error.stderr.strip().splitlines() or ["failed"])[-1]}
    return json.loads(result.stdout.splitlines()[-1])


def _report(path, name):
    """What one row needs, in this process, as a line of JSON."""
    with np.load(path) as file:
        data, variance, psf = file["data"], file["variance"], file["psf"]
    call = _call(name)
    part = np.s_[:, :_WARM, :_WARM]
    call(data[part], variance[part], psf)
    with contextlib.suppress(OSError):  # where there is no such file the peak is that of the process's whole life
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    started = time.perf_counter()
    result = call(data, variance, psf)
    seconds = time.perf_counter() - started
    needed = _memory("VmHWM") - before
    report = {"sources": len(result), "seconds": seconds, "megabytes": needed / 1e6, "images": needed / data.nbytes}
    return json.dumps(report)


def _call(name):
    """A function of data, variance and PSF whose result has a length: the number of sources."""
    from astrogan.api import Observation

    if name == PEER:

        def peer(data, variance, psf):
            tables = photutils_catalogs(Observation(data, variance=variance, psf=psf, bands=_BANDS))
            return tables[0] if tables else []

        return peer
    from astropy.nddata import CCDData, VarianceUncertainty

    from astrogan.bench._deblending_rows import named_rows, operator

    deblender = operator(named_rows([name])[0])
    return lambda data, variance, psf: deblender(
        CCDData(data, unit="adu", uncertainty=VarianceUncertainty(variance)), psf=psf
    )


def _memory(field):
    """Bytes; of the whole process's life where there is no /proc."""
    import resource

    try:
        with open("/proc/self/status") as file:
            return 1024 * next(int(line.split()[1]) for line in file if line.startswith(field))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    try:
        print(_report(sys.argv[1], sys.argv[2]))
    except AstroganError as problem:
        raise SystemExit(" ".join(str(problem).split())) from None
