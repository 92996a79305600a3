"""The Sloan Digital Sky Survey: the sample of the GalaxyGAN paper, frames, calibrated cutouts."""

from __future__ import annotations

import contextlib
from pathlib import Path

from astrogan.datasets._collection import Collection, as_sample, limited, read_table, whole_number
from astrogan.datasets._sdss_catalog import FIELD, checked_bands, known_sample, sdss_query, sdss_table
from astrogan.datasets._sdss_cutouts import Cutting, checked_cutout
from astrogan.datasets._sdss_frame import check_frame, frame_name, frame_url
from astrogan.datasets._transport import Downloader, DownloadError, need_pooch, server_url
from astrogan.exceptions import InputError

__all__ = ["fetch_sdss_frames", "fetch_sdss_sample", "sdss_query", "sdss_table"]

SAS = "https://data.sdss.org/sas"


def fetch_sdss_frames(fields, folder=None, *, bands="gri", data_release=12, server=SAS, downloader=None, progress=None):
    """Fetch whole SDSS frames: 2048 x 1489 pixels of 0.396 arcsec, in nanomaggies, packed with bzip2.

    Parameters
    ----------
    fields : `~astropy.table.Table`, path or list of tuple
        With columns ``run``, ``rerun``, ``camcol``, ``field``, such as `sdss_query` gives; or tuples of these four
        numbers. The same field may come more than once.
    folder : path, optional
        Where the files go. Default: the folder ``astrogan/sdss-frames-dr<release>`` of pooch's cache.
    bands : str, optional
        Letters of ``ugriz``.
    data_release : int, optional
        8 or later.
    server : str, optional
        Address of the Science Archive Server, or of a mirror.
    downloader : `Downloader`, optional
        Timeouts, retries and rate.
    progress : callable, optional
        Called with (done, total).

    Returns
    -------
    `~astropy.table.Table`
        The manifest: a row a frame, with ``name``, its field, ``band``, ``file``, ``bytes``, ``sha256``, ``url``,
        ``fetched``, ``status`` (``"ok"`` or ``"failed"``) and ``reason``; also in ``manifest.ecsv`` in the folder.

    Raises
    ------
    InputError
        If an argument cannot be used, or the folder holds another release's frames.
    DownloadError
        If five files in a row could not be had.
    ImageWriteError
        If the disk is full or the folder cannot be written to.
    MissingDependencyError
        If pooch is not installed.

    Warns
    -----
    AstroganWarning
        If some frames could not be had.
    """
    server, bands = server_url(server), checked_bands(bands)
    whole_number("data_release", data_release, 8, 99)
    frames = _frame_table(_field_numbers(fields), bands)
    store = FrameStore(folder, frames, data_release, server, downloader or Downloader())
    with store.files as files:
        todo = files.missing(check_frame)
        for done, k in enumerate(todo, len(frames) - len(todo)):
            _tell(progress, done, len(frames))
            store.fetch(k)
        _tell(progress, len(frames), len(frames))
    return files.finish()


def fetch_sdss_sample(
    folder,
    sample=None,
    *,
    size=256,
    bands="gri",
    redshift=(0.01, 0.02),
    limit=None,
    min_coverage=0.5,
    data_release=12,
    keep_frames=False,
    cache=None,
    server=SAS,
    downloader=None,
    progress=None,
):
    """Fetch calibrated cutouts around galaxies from SDSS frames; by default of the GalaxyGAN paper's sample.

    The catalog is asked once (`sdss_query`; ``sample.ecsv`` in the folder), then the frames of each field come, one
    after the other, and the galaxies in it are cut out.

    Parameters
    ----------
    folder : path
        Where the cutouts go: ``<objid>.fits``, and ``manifest.ecsv``.
    sample : `~astropy.table.Table` or path, optional
        Galaxies of your own, with columns ``ra``, ``dec`` (deg), ``run``, ``rerun``, ``camcol``, ``field``, and if they
        are known ``objid`` or ``name``, ``gain_<band>`` and ``darkvariance_<band>`` (for the uncertainty) and
        ``psfwidth_<band>`` (arcsec, for the PSF). Default: what `sdss_query` finds.
    size : int, optional
        Edge of the cutouts in pixels of 0.396 arcsec, 8 to 1489. The paper does not give it.
    bands : str, optional
        Letters of ``ugriz``; the pixels of ``r``, or of the first where ``r`` is not among them, are kept as they are,
        and the others resampled (bicubic) to its grid, from which they are off by some pixels and fractions.
    redshift, limit : optional
        As for `sdss_query`. ``limit`` also cuts a ``sample`` of your own.
    min_coverage : float, optional
        Galaxies at the edge of a field are not whole: pixels beyond it are masked. Below this part (0 to 1) of pixels
        that all bands have, no file is written.
    data_release : int, optional
        8 or later; the paper's is 12.
    keep_frames : bool, optional
        Keep the frames, of some 3 MB each, in ``cache``. Otherwise a frame goes when its galaxies are cut out.
    cache : path, optional
        Folder of the frames, as for `fetch_sdss_frames`.
    server, downloader, progress : optional
        As for `fetch_sdss_frames`. Progress counts galaxies.

    Returns
    -------
    `~astropy.table.Table`
        The sample, with the columns of the manifest: ``file``, ``bytes``, ``sha256``, ``url`` (of the frames),
        ``fetched``, ``status`` (``"ok"``, ``"left out"`` or ``"failed"``), ``reason`` and ``coverage``.

    Raises
    ------
    InputError
        If an argument cannot be used, or the folder holds cutouts of another kind.
    DownloadError
        If the catalog could not be asked, or five galaxies in a row could not be had.
    ImageWriteError
        If the disk is full or the folder cannot be written to.
    MissingDependencyError
        If pooch is not installed, or, without a ``sample``, astroquery.

    Warns
    -----
    AstroganWarning
        If some galaxies could not be had.

    Notes
    -----
    Each file has an extension a band in nanomaggies per pixel, with WCS, PSF and standard deviation of a pixel; they
    read back as a cube with `astrogan.read_image` and with ``FitsFolder(folder, bands="all")``. The noise is that of
    SDSS' data model: :math:`\\sigma^2 = c^2 (n / g + v)` with n the counts of object and sky, g the gain, v the dark
    variance and c the nanomaggies per count. In resampled bands the noise of a pixel is a little less than that, and
    that of neighbours is correlated. The PSF is a Moffat profile of the width that the catalog has for the field.
    """
    bands = checked_bands(bands)
    whole_number("size", size, 8, 1489)
    whole_number("data_release", data_release, 8, 99)
    if not isinstance(min_coverage, int | float) or isinstance(min_coverage, bool) or not 0 <= min_coverage <= 1:
        raise InputError(f"min_coverage={min_coverage!r} must be 0 to 1")
    need_pooch()
    server, downloader = server_url(server), downloader or Downloader()
    # Said now and not after the query.
    settings = {"service": "sdss frames", "data_release": int(data_release), "size": int(size), "bands": bands}
    if sample is None:
        sql = sdss_query(redshift, bands=bands, limit=limit)
        sample = known_sample(Path(folder).expanduser() / "sample.ecsv", sql, data_release, downloader)
    galaxies = limited(as_sample(sample, ("ra", "dec", *FIELD)), limit)
    with Collection(folder, galaxies, settings, ".fits", {"coverage": 0.0}) as files:
        todo = files.missing(lambda path: checked_cutout(path, bands, size))
        work = Cutting(files, galaxies, bands, size, min_coverage)
        done = len(galaxies) - len(todo)
        groups = _by_field(galaxies, todo)
        frames = _frame_table(groups, bands) if groups else None
        store = groups and FrameStore(cache, frames, data_release, server, downloader, keep=keep_frames)
        for number, rows in enumerate(groups.values()):
            _tell(progress, done, len(galaxies))
            first = number * len(bands)
            with store.frames(range(first, first + len(bands))) as opened:
                work.field(opened, rows)
            done += len(rows)
        _tell(progress, done, len(galaxies))
    return files.finish()


# ---- frames -------------------------------------------------------------------------------------------------------


class FrameStore:
    """Frames in a folder, with their manifest."""

    def __init__(self, folder, frames, data_release, server, downloader, *, keep=True):
        if folder is None:
            folder = Path(need_pooch().os_cache("astrogan")) / f"sdss-frames-dr{data_release}"
        settings = {"service": "sdss frames", "data_release": int(data_release)}
        self.files = Collection(folder, frames, settings, ".fits.bz2", passing=not keep)
        self._release, self._server, self._downloader, self._keep = data_release, server, downloader, keep

    def fetch(self, k):
        """Fetch a frame and note how it went; whether it came."""
        row, name = self.files.sample[k], self.files.name(k)
        numbers = {column: int(row[column]) for column in FIELD}
        url = frame_url(self._server, self._release, band=str(row["band"]), **numbers)
        try:
            self._downloader.fetch(url, self.files.path(name), check=check_frame)
        except DownloadError as error:
            self.files.failed(name, error, url)
            return False
        self.files.done(name, url)
        return True

    @contextlib.contextmanager
    def frames(self, rows):
        """The frames of a field: (path, record of the manifest) of each; those that came go afterwards, unless kept."""
        new = self.files.missing(check_frame, rows)
        try:
            for k in new:
                if not self.fetch(k):
                    break  # without one band the others are of no use
            names = [self.files.name(k) for k in rows]
            yield [(self.files.path(name), self.files.record(name)) for name in names]
        finally:
            if self._keep:
                self.files.save()
            else:
                for k in new:
                    self.files.path(self.files.name(k)).unlink(missing_ok=True)


def _frame_table(numbers, bands):
    """A row a frame, each once, those of a field together."""
    from astropy.table import Table

    rows = [(*field, band) for field in dict.fromkeys(numbers) for band in bands]
    table = Table(rows=rows, names=(*FIELD, "band"))
    names = [frame_name(run=run, camcol=c, field=f, band=b).removesuffix(".fits.bz2") for run, _, c, f, b in rows]
    table.add_column(names, name="name", index=0)
    return table


def _field_numbers(fields):
    from astropy.table import Table

    if isinstance(fields, str | Path):
        fields = read_table(Path(fields).expanduser())
    if isinstance(fields, Table):
        lacking = [name for name in FIELD if name not in fields.colnames]
        if lacking:
            raise InputError(f"fields has no column {', '.join(lacking)}; it must have {', '.join(FIELD)}")
        fields = list(zip(*(fields[name] for name in FIELD), strict=True))
    try:
        numbers = [tuple(int(number) for number in field) for field in fields]
        good = bool(numbers) and all(len(field) == 4 and min(field) >= 0 and 1 <= field[2] <= 6 for field in numbers)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise InputError(
            f"fields={str(fields)[:100]} must be (run, rerun, camcol, field), whole numbers, camcol 1 to 6; e.g. "
            "[(1737, 301, 5, 128)]"
        )
    return numbers


def _by_field(galaxies, rows):
    """Rows of each field, by (run, rerun, camcol, field), in order."""
    numbers = _field_numbers(galaxies)
    groups = {}
    for k in rows:
        groups.setdefault(numbers[k], []).append(k)
    return dict(sorted(groups.items()))


def _tell(progress, done, total):
    if progress is not None:
        progress(done, total)
