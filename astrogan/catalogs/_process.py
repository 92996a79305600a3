"""`process_catalog` and `process_images`: any number of stamps, in any number of processes, any number of times."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import astrogan
from astrogan.catalogs._arguments import (
    checked_operator,
    one_of,
    only_for_restorers,
    positive,
    seed_of,
    size_of,
    whole,
)
from astrogan.catalogs._flags import RowFlag
from astrogan.catalogs._journal import RESULTS, Journal, described
from astrogan.catalogs._parts import write_cube, write_files
from astrogan.catalogs._rows import read_catalog, rows_of_catalog, rows_of_images
from astrogan.catalogs._stamps import Job, Stamp, failed_stamp, settled, stamps_of
from astrogan.catalogs._table import say, table_of
from astrogan.catalogs._windows import check_readable
from astrogan.catalogs._workers import as_executor, in_processes, in_this_process, on_executor
from astrogan.exceptions import InputError
from astrogan.image._quiet import recorded
from astrogan.image.tiling import available_cores
from astrogan.image.write import write_table

__all__ = ["process_catalog", "process_images"]

_MOST_ROWS, _PART_BYTES = 500, 2**26
_TRIED = 8


def process_catalog(
    operator,
    catalog,
    image=None,
    *,
    output,
    size,
    sky=None,
    xy=None,
    image_column=None,
    id_column=None,
    psf=None,
    margin="auto",
    aperture=None,
    diagnose=False,
    layout="cube",
    chunk=None,
    workers=None,
    client=None,
    resume=True,
    overwrite=False,
    rng=0,
    progress=None,
    **reading,
):
    """Restore, translate or degrade a stamp for every row of a catalog.

    Parameters
    ----------
    operator : `~astrogan.Restorer`, `~astrogan.Translator` or `~astrogan.Degrader`
        Configured; it is not changed.
    catalog : `~astropy.table.Table`, path, `~astropy.coordinates.SkyCoord` or array_like
        With columns x and y (0-based pixels), ra and dec, or one of sky positions, whatever their case; an array is
        (n, 2), each row (x, y).
    image : path, `~astropy.nddata.NDData`, list or dict, optional
        The image of all rows, as operators take it; of a FITS file only the windows are read.
    output : path
        Folder for the results; it is made where there is none.
    size : int or tuple of int
        Edge of a stamp, or (y, x), in pixels of the image.
    sky : str or pair of str, optional
        Names of the column of sky positions, or of right ascension and declination.
    xy : pair of str, optional
        Names of the columns of pixels.
    image_column : str, optional
        Column with the path of each row's image, relative to the folder of the catalog; instead of ``image``.
    id_column : str, optional
        Column of integers or texts that name the rows. Default: their numbers.
    psf : optional
        PSF of the images, in any form that `~astrogan.image.psf.as_psf` takes. One that varies over the field is taken
        at the middle of each stamp. Default: the operator's (for a `~astrogan.Degrader` that is the one wanted), the
        image's own, its header's.
    margin : int, optional
        Pixels of context that the method sees on each side of a stamp, where the image has them. Default: as many as
        the method says that it needs; 32 where it says nothing, or needs the whole image.
    aperture : float, optional
        Radius in pixels of the image of the circle around the position in which fluxes are summed. Default: a quarter
        of the shorter edge.
    diagnose : bool, optional
        Also the reduced chi^2 of `~astrogan.Restorer.diagnose`, in the stamp with its context.
    layout : {'cube', 'files'}, optional
        ``"cube"``: FITS cubes of many stamps, ``stamps-00000.fits`` and so on. ``"files"``: a file a row, named by its
        id, with the header of its image.
    chunk : int, optional
        Rows that are worked on, written and recorded together. Default: as many as make 64 MB, 500 at most.
    workers : int, optional
        Processes; 1 works in this one. Default: as many as the process may use cores.
    client : `distributed.Client` or `concurrent.futures.Executor`, optional
        Works instead of processes of our own; it must see the same files.
    resume : bool, optional
        Go on with what the folder holds of this very run. `False`: begin anew.
    overwrite : bool, optional
        Whether finished results may be replaced, with ``resume=False``.
    rng : int or `numpy.random.Generator`, optional
        Each row draws numbers of its own, keyed by this seed and the row's number. Only with a seed can a run be
        resumed.
    progress : callable, optional
        ``progress(done, total)``, in rows.
    **reading
        ``unit``, ``hdu``, ``uncertainty``, ``mask``, ...: see `~astrogan.image.prepare.prepare`.

    Returns
    -------
    `~astropy.table.Table`
        The rows in the order of the catalog, also written as ``results.ecsv``: ``row``, ``id``, ``image``, ``x`` and
        ``y`` (0-based pixels), ``x0`` and ``y0`` (first pixel of the stamp in the image), ``file`` and ``plane`` (where
        the stamp is; -1: the file is its own), ``flags`` (`~astrogan.catalogs.RowFlag`), ``status`` (the same in
        words), ``error``, ``masked`` (pixels), ``flux_in`` and ``flux_out`` (sums in the aperture), ``unit``,
        ``out_of_range`` (logarithm of a factor; NaN for classic methods), ``weights``, ``reduced_chi2``.

    Raises
    ------
    InputError, ImageReadError, PSFError, BackendError, ...
        If arguments contradict each other, the image cannot be read, no row lies in it, or the operator fails on the
        first rows that it is tried on: then it would fail on all of them.
    ImageWriteError
        If the folder cannot be written, or holds finished results.

    Warns
    -----
    AstroganWarning
        What the operator warns of, once a kind, and how many rows failed.

    See Also
    --------
    process_images : Whole images.
    Results : Stamps of a finished run.

    Notes
    -----
    Sky level and noise are those of each stamp with its context, not of the whole image; an image that has an
    uncertainty, and a method whose levels are given as options, give the pixels that the whole image would have, as
    far as ``margin`` is what the method needs. Where a source fills its stamp, measured levels are too high: give an
    uncertainty, or a larger margin.

    A row that fails does not stop the others: its flags and ``error`` say why. Results do not depend on ``workers``,
    ``client`` or ``chunk``, nor on whether the run was interrupted: each chunk is written to temporary files that are
    flushed and renamed, and then recorded. A worker that is killed costs the time of its chunk.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astrogan import Restorer
    >>> from astrogan.catalogs import Results, process_catalog
    >>> image = CCDData(np.random.default_rng(1).normal(size=(80, 90)), unit="adu")
    >>> restorer = Restorer("wiener", psf=3.0, balance=10.0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = process_catalog(restorer, [(40, 30), (200, 30)], image, output=folder, size=32, workers=1)
    ...     shape = Results(folder)[0].shape
    >>> table["status"].tolist(), shape
    (['ok', 'outside'], (32, 32))
    """
    table, folder = read_catalog(catalog)
    if (image is None) == (image_column is None):
        raise InputError("give image= (one for all rows) or image_column= (a path a row), one of them")
    rows, on_sky = rows_of_catalog(table, folder, sky=sky, xy=xy, image_column=image_column, id_column=id_column)
    check_readable(image)
    size = size_of(size)
    job = Job(
        checked_operator(operator),
        image,
        reading,
        psf,
        size,
        margin=margin if margin == "auto" else whole("margin", margin, 0),
        on_sky=on_sky,
        seed=seed_of(rng),
        aperture=min(size) / 4 if aperture is None else positive("aperture", aperture),
        diagnose=only_for_restorers(diagnose, operator),
        whole_header=one_of("layout", layout, ("cube", "files")) == "files",
    )
    return _run(job, rows, output, chunk, workers, client, resume, overwrite, progress)


def process_images(
    operator,
    paths,
    output,
    *,
    psf=None,
    diagnose=False,
    workers=None,
    client=None,
    resume=True,
    overwrite=False,
    rng=0,
    progress=None,
    **reading,
):
    """Restore, translate or degrade many images, each to a file of its own.

    Parameters
    ----------
    operator : `~astrogan.Restorer`, `~astrogan.Translator` or `~astrogan.Degrader`
        Configured; it is not changed.
    paths : sequence of path
        FITS files or pictures; no two of one name.
    output : path
        Folder for the results, which have the names of the images.
    psf, diagnose, workers, client, resume, overwrite, rng, progress, **reading
        As for `process_catalog`.

    Returns
    -------
    `~astropy.table.Table`
        As of `process_catalog`, a row an image.

    Raises
    ------
    InputError, ImageReadError, PSFError, BackendError, ImageWriteError, ...
        As `process_catalog`.
    """
    job = Job(
        checked_operator(operator),
        None,
        reading,
        psf,
        seed=seed_of(rng),
        diagnose=only_for_restorers(diagnose, operator),
        whole_header=True,
    )
    return _run(job, rows_of_images(paths), output, 1, workers, client, resume, overwrite, progress)


# ---- the run -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """What a worker does with the rows of a chunk: stamps, their files, and the record of both."""

    job: Job
    folder: Path
    shape: tuple[int, int, int]
    unit: str
    notes: dict

    def chunk(self, chunk, rows):
        """Work on rows, write their files, and give their record."""
        said = {}
        stamps = [_without_warnings(stamp, said) for stamp in _each(self.job, rows)]
        return self._record(chunk, stamps, said)

    def row(self, row):
        """The stamp of one row."""
        return next(iter(stamps_of(self.job, [row])))

    def written(self, chunk, rows, stamps):
        """The record of rows that were worked on one by one; `None` for one that killed its worker."""
        died = "the process that worked on it was killed, by the system or for want of memory"
        stamps = [
            Stamp(row, {"flags": int(RowFlag.WORKER_DIED), "error": died}) if stamp is None else stamp
            for row, stamp in zip(rows, stamps, strict=True)
        ]
        return self._record(chunk, stamps, {})

    def _record(self, chunk, stamps, said):
        stamps = [self._of_shape(stamp) for stamp in stamps]
        if self.job.whole_header:
            files = write_files(self.folder, stamps)
            places = [(f"{stamp.row.name}.fits" if stamp.result is not None else "", -1) for stamp in stamps]
        else:
            name = f"stamps-{chunk:05d}.fits"
            files = write_cube(self.folder / name, stamps, self.shape, self.notes)
            places = [(name, plane) if stamp.layers else ("", -1) for plane, stamp in enumerate(stamps)]
        records = []
        for stamp, (name, plane) in zip(stamps, places, strict=True):
            records.append({"row": stamp.row.index, "file": name, "plane": plane} | stamp.record)
        return {"files": files, "warnings": said, "rows": records}

    def _of_shape(self, stamp):
        """The stamp, or why it does not fit beside the others."""
        shape = stamp.layers["DATA"].shape if stamp.layers else None
        if shape is None or self.job.size is None or (shape == self.shape and stamp.record["unit"] == self.unit):
            return stamp
        error = InputError(
            f"the stamp has shape {shape} and unit {stamp.record['unit']!r}, the others {self.shape} and "
            f"{self.unit!r}; process images of other bands or units by themselves, or give unit="
        )
        return failed_stamp(stamp.row, RowFlag.FAILED, error)


def _each(job, rows):
    """(stamp, warnings) a row."""
    stamps = stamps_of(job, rows)
    try:
        for _ in rows:
            with recorded() as caught:
                stamp = next(stamps)
            yield stamp, caught
    finally:
        stamps.close()


def _without_warnings(pair, said):
    """The stamp of a pair; its warnings are counted by kind, with the first of each."""
    stamp, caught = pair
    for kind, text in {item.category.__name__: str(item.message) for item in caught}.items():
        said[kind] = [said.get(kind, [text])[0], said.get(kind, [text, 0])[1] + 1]
    return stamp


def _run(job, rows, output, chunk, workers, client, resume, overwrite, progress):
    if workers is not None:
        whole("workers", workers)
    job, first = _tried(job, rows)
    length = _chunk_length(chunk, first)
    chunks = {i // length: rows[i : i + length] for i in range(0, len(rows), length)}
    journal = Journal(output)
    try:
        journal.begin(_configuration(job, rows, length, first), resume=resume, overwrite=overwrite)
        work = _Work(job, journal.folder, first.layers["DATA"].shape, first.record["unit"], _notes(job, first))
        records = {number: journal.done(number) for number in chunks}
        todo = {number: part for number, part in chunks.items() if records[number] is None}
        if todo:
            (journal.folder / RESULTS).unlink(missing_ok=True)
        done = len(rows) - sum(map(len, todo.values()))
        for number, record in _worked(work, todo, workers, client):
            journal.finish(number, record)
            records[number] = record
            done += len(chunks[number])
            if progress is not None:
                progress(done, len(rows))
        table = table_of(job, rows, [records[number] for number in sorted(records)], work.shape[0])
        if todo or not (journal.folder / RESULTS).exists():
            write_table(table, journal.folder / RESULTS, overwrite=True)
    finally:
        journal.close()
    say(records, table)
    return table


def _worked(work, chunks, workers, client):
    if client is not None:
        return on_executor(work, chunks, as_executor(client))
    workers = min(available_cores() if workers is None else workers, len(chunks))
    return in_processes(work, chunks, workers) if workers > 1 else in_this_process(work, chunks)


def _tried(job, rows):
    """The job with all that its first row settles, and that row's stamp.

    What fails on every one of several rows is no row's fault: it is raised before anything is written.
    """
    errors = []
    job, start = settled(job, rows, errors, _TRIED)
    for stamp, _ in _each(job, rows[start:]):
        if stamp.layers:
            return job.replace(uses_torch="torch" in sys.modules), stamp
        if stamp.error is not None:
            errors.append(stamp.error)
        if len(errors) >= _TRIED:
            break
    if errors:
        raise errors[0]
    where = "" if rows[0].place is None else f"; row 0 is at {rows[0].place}: check the order of the coordinates"
    raise InputError(f"no row of the catalog has a valid pixel in its image{where}")


def _chunk_length(chunk, stamp):
    """Rows a chunk: a file of 64 MB, but not so many that a killed worker costs much."""
    if chunk is not None:
        return whole("chunk", chunk)
    size = sum(layer.nbytes for layer in stamp.layers.values())
    return int(min(max(_PART_BYTES // size, 1), _MOST_ROWS))


def _configuration(job, rows, length, first):
    """What the results depend on, as texts by name."""
    operator = job.operator
    own = {name: value for name, value in vars(operator).items() if not name.startswith("_") and name not in _APART}
    settings = {"astrogan": astrogan.__version__, "operator": type(operator).__name__}
    settings |= {"backend": f"{operator.backend_name} {operator.backend_version or ''}".strip()}
    settings |= {name: described(value) for name, value in sorted((own | operator.options).items())}
    if ":" not in operator.backend_name:  # an instance of the user's own: what it holds are its options
        settings["backend's settings"] = described(operator.backend)
    settings |= {name: described(value) for name, value in sorted(job.reading.items())}
    settings |= {"psf of the images": described(job.psf)} if job.psf is not None else {}
    names = ("size", "margin", "align", "seed", "aperture", "diagnose", "on_sky", "whole_header")
    settings |= {name: described(getattr(job, name)) for name in names}
    paths = dict.fromkeys(row.image for row in rows if row.image is not None)
    places = [(row.id, row.place, row.image) for row in rows]
    return settings | {
        "chunk": str(length),
        "weights": first.record["weights"],
        "catalog": f"{len(rows)} rows {hashlib.sha256(repr(places).encode()).hexdigest()[:16]}",
        "image": _stamp_of(job.image) if not paths else hashlib.sha256(_stamp_of(list(paths)).encode()).hexdigest(),
    }


_APART = ("backend", "backend_name", "backend_version", "options", "progress", "workers")


def _stamp_of(image):
    """What tells an image from a changed one: size and time of a file, the pixels of one in memory."""
    if isinstance(image, str | os.PathLike):
        try:
            status = os.stat(image)
        except OSError:
            return f"{str(image)!r} missing"
        return f"{os.path.abspath(image)!r} {status.st_size} bytes {status.st_mtime_ns}"
    if isinstance(image, Mapping):
        return ", ".join(f"{key}: {_stamp_of(value)}" for key, value in image.items())
    return ", ".join(map(_stamp_of, image)) if isinstance(image, list | tuple) else described(image)


def _notes(job, first):
    """Keywords of the cubes."""
    from astropy import units as u

    from astrogan.image._headers import unit_text

    notes = {"AGVERS": astrogan.__version__, "AGOP": job.operator.operation, "AGBACK": job.operator.backend_name}
    return {"BUNIT": unit_text(u.Unit(first.record["unit"]))} | notes
