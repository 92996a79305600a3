"""Where training images come from: stamps in an archive, FITS files, a big field, or a simulation without end."""

from __future__ import annotations

from astrogan.train.sources.base import Mix, Sample, Source, Subset
from astrogan.train.sources.cube import FitsCube
from astrogan.train.sources.field import Field
from astrogan.train.sources.fits import FitsFolder
from astrogan.train.sources.simulated import SimulatedStream
from astrogan.train.sources.spec import open_source, open_sources
from astrogan.train.sources.stamps import StampTar
from astrogan.train.sources.watched import Watched

__all__ = [
    "Field",
    "FitsCube",
    "FitsFolder",
    "Mix",
    "Sample",
    "SimulatedStream",
    "Source",
    "StampTar",
    "Subset",
    "Watched",
    "open_source",
    "open_sources",
]
