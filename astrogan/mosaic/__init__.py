"""Images larger than memory: windows of a file in, windows of a file out, and nothing lost on a kill.

The operators' ``process`` is what users call. What it needs is here: `MosaicSource` reads windows, `Sketch` is what
stands for the whole image where something has to be measured on all of it, `MosaicFile` is the output in the making,
and `run_blocks` hands out the work, to threads, processes or a dask cluster.
"""

from astrogan.mosaic.engine import Block, Piece, run_blocks
from astrogan.mosaic.output import MosaicFile
from astrogan.mosaic.sketch import Sketch
from astrogan.mosaic.source import MosaicSource

__all__ = ["Block", "MosaicFile", "MosaicSource", "Piece", "Sketch", "run_blocks"]
