"""Fetching survey images: the SDSS sample of the GalaxyGAN paper, Galaxy Zoo's stamps, Legacy Surveys cutouts.

Each ``fetch_...`` function fills a folder and keeps a manifest in it, ``manifest.ecsv``, with the origin, size and
SHA-256 of each file; a second call fetches only what is missing or damaged. Needs the optional packages astroquery
and pooch: ``pip install 'astrogan[data]'``.
"""

from astrogan.datasets._transport import Downloader, DownloadError
from astrogan.datasets.galaxy_zoo import fetch_galaxy_zoo, fetch_galaxy_zoo_archive, galaxy_zoo_query
from astrogan.datasets.legacy import fetch_legacy_cutouts
from astrogan.datasets.sdss import fetch_sdss_frames, fetch_sdss_sample, sdss_query, sdss_table

__all__ = [
    "DownloadError",
    "Downloader",
    "fetch_galaxy_zoo",
    "fetch_galaxy_zoo_archive",
    "fetch_legacy_cutouts",
    "fetch_sdss_frames",
    "fetch_sdss_sample",
    "galaxy_zoo_query",
    "sdss_query",
    "sdss_table",
]
