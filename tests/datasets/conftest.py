"""A server on this machine that gives the answers a test tells it, and small files of the kinds that surveys have."""

import bz2
import contextlib
import io
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS


class Answer:
    """What the server says: status, body, headers, ``cut`` bytes fewer than it announces."""

    def __init__(self, body=b"", status=200, headers=(), cut=0):
        self.body, self.status, self.headers, self.cut = body, status, dict(headers), cut


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        parsed = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parsed.query, keep_blank_values=True))
        with self.server.lock:
            self.server.requests.append(SimpleNamespace(path=parsed.path, query=query, headers=dict(self.headers)))
            answer = self.server.answer(parsed.path, query)
        self.send_response(answer.status)
        for key, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
            self.send_header(key, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may have gone
            self.wfile.write(answer.body[: len(answer.body) - answer.cut])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """``server.answer(path, query)`` is what a test sets; ``server.requests`` what was asked, ``server.url`` where."""
    pytest.importorskip("pooch")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.lock, httpd.requests = threading.Lock(), []
    httpd.answer = lambda path, query: Answer(status=404)
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=lambda: httpd.serve_forever(0.01), daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def downloader():
    """Impatient, for a server that is near."""
    from astrogan.datasets import Downloader

    return Downloader(timeout=10, retries=2, backoff=0, rate=None)


def tan_wcs(ra, dec, x, y, scale=0.396, angle=0.0):
    """A tangential projection with (ra, dec) at the 0-based pixel (x, y)."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cunit = (ra, dec), (x + 1, y + 1), ("deg", "deg")
    c, s = np.cos(np.radians(angle)) * scale / 3600, np.sin(np.radians(angle)) * scale / 3600
    wcs.wcs.cd = [[-c, s], [s, c]]
    return wcs


def frame_bytes(data, wcs, *, calibration=0.005, sky=100.0, run=94, camcol=1, field=100, band="r"):
    """A frame as SDSS has it, packed."""
    ny, nx = data.shape
    header = wcs.to_header()
    header["RUN"], header["CAMCOL"], header["FRAME"], header["FILTER"] = run, camcol, field, band
    header["NMGY"] = calibration
    header["BUNIT"] = "nanomaggy"
    coarse = np.full((1, ny // 8, nx // 8), sky, np.float32)
    columns = [
        fits.Column("ALLSKY", f"{coarse[0].size}E", dim=f"({coarse.shape[2]},{coarse.shape[1]})", array=coarse),
        fits.Column("XINTERP", f"{nx}E", array=[(np.arange(nx) + 0.5) / 8 - 0.5]),
        fits.Column("YINTERP", f"{ny}E", array=[(np.arange(ny) + 0.5) / 8 - 0.5]),
    ]
    hdus = [
        fits.PrimaryHDU(data.astype(np.float32), header),
        fits.ImageHDU(np.full(nx, calibration, np.float32)),
        fits.BinTableHDU.from_columns(columns),
    ]
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(stream)
    return bz2.compress(stream.getvalue(), 1)


def jpeg_bytes(size, seed=0):
    """A colour JPEG."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(seed).integers(0, 255, (size // 8, size // 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    image.fromarray(np.kron(pixels, np.ones((8, 8, 1), np.uint8))).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def make():
    """The makers of answers."""
    return SimpleNamespace(Answer=Answer, wcs=tan_wcs, frame=frame_bytes, jpeg=jpeg_bytes)
