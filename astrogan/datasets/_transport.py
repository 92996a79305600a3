"""Files over HTTP: timeouts, retries, a limit on the rate, and a look at what came before it gets its name."""

from __future__ import annotations

import contextlib
import logging
import math
import numbers
import re
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

from astrogan.exceptions import AstroganError, ImageWriteError, InputError, MissingDependencyError

__all__ = ["DownloadError", "Downloader"]

_log = logging.getLogger("astrogan")

_CHUNK = 2**16
# What a server says when it will do better later.
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
# A server may ask for a pause; no longer than this is waited.
_LONGEST_PAUSE = 300.0
_CONNECT = 20.0


class DownloadError(AstroganError, OSError):
    """A file could not be had from a service: no connection, an HTTP error, or something else than was asked for.

    ``status`` is the HTTP status, or `None` where there was no answer or its content was at fault.
    """

    def __init__(self, message, status=None):
        super().__init__(message)
        self.status = status


class WrongContentError(Exception):
    """What came is not what was asked for: an error page, a file that ends too early."""


class _Passing(Exception):  # noqa: N818 - never leaves this module
    """A fault that may be gone in the next attempt."""

    def __init__(self, message, status=None, pause=None):
        super().__init__(message)
        self.status, self.pause = status, pause


class Downloader:
    """How files are asked for: timeouts, retries, rate.

    Parameters
    ----------
    timeout : float, optional
        Seconds without a byte from the server after which an attempt is given up.
    retries : int, optional
        Further attempts after the first one failed for a reason that may pass: no connection, a timeout, HTTP 408,
        425, 429 or 5xx, a body that ends too early, an error page in the place of the file. Other HTTP errors are
        not tried again.
    backoff : float, optional
        Seconds before the second attempt; each further one waits twice as long. A longer ``Retry-After`` of the
        server is honoured, up to five minutes.
    rate : float or None, optional
        Most requests a second. `None`: no limit; only for servers of your own.
    session : ``requests.Session``, optional
        For a proxy or a login. Default: one with astrogan's name as user agent.

    Raises
    ------
    InputError
        If a number is not one that can be used.
    MissingDependencyError
        When first used, if pooch is not installed.

    Examples
    --------
    >>> from astrogan.datasets import Downloader
    >>> Downloader(timeout=30, retries=2)
    Downloader(timeout=30.0, retries=2, backoff=2.0, rate=3.0)
    """

    def __init__(self, timeout=60.0, retries=4, backoff=2.0, rate=3.0, session=None):
        self.timeout = _number("timeout", timeout, above=0)
        if isinstance(retries, bool) or not isinstance(retries, numbers.Integral) or retries < 0:
            raise InputError(f"retries={retries!r} must be a whole number, 0 or more")
        self.retries = int(retries)
        self.backoff = _number("backoff", backoff, above=None)
        self.rate = None if rate is None else _number("rate", rate, above=0)
        self._given, self._own, self._last = session, None, -math.inf

    def __repr__(self):
        return f"Downloader(timeout={self.timeout}, retries={self.retries}, backoff={self.backoff}, rate={self.rate})"

    def fetch(self, url, path, *, known_hash=None, check=None):
        """Bring a file to a path, through `pooch <https://www.fatiando.org/pooch>`__.

        The file comes under another name in the same folder and gets its own only when it is whole, ``check`` and
        ``known_hash`` are content. What lies at ``path`` is kept if it has the known hash, and is fetched anew
        otherwise.

        Parameters
        ----------
        url : str
            Of the file.
        path : path
            Where to put it; the folder is made.
        known_hash : str, optional
            SHA-256, or another with its name: ``"md5:..."``.
        check : callable, optional
            Called with the path of what came; raises `ValueError` or `OSError` if it is not as it should be.

        Returns
        -------
        str
            SHA-256 of the file.

        Raises
        ------
        DownloadError
            If it could not be had, or is another than its hash says.
        ImageWriteError
            If the disk is full or the folder cannot be written to.
        MissingDependencyError
            If pooch is not installed.
        """
        pooch, path = need_pooch(), Path(path)
        make_folder(path.parent)

        def download(address, output, _pooch):
            self._attempts(lambda: self._once(address, output, check), address)

        try:
            if known_hash is None:
                path.unlink(missing_ok=True)
            with _silent(pooch):
                pooch.retrieve(url, known_hash, fname=path.name, path=path.parent, downloader=download)
        except AstroganError:
            raise
        except ValueError as error:  # pooch's word for a hash that does not match
            raise DownloadError(
                f"{url} is not the file it should be: its hash is not {known_hash}. Nothing was kept; try again, and "
                "if it stays so, the file on the server has changed"
            ) from error
        except OSError as error:
            raise _cannot_write(path, error) from error
        return sha256(path)

    def _call(self, function, what):
        """Call ``function`` as often, and at the rate, that a file would be asked for; ``what`` is for messages."""
        need_pooch()
        return self._attempts(function, what)

    def _attempts(self, function, what):
        for attempt in range(self.retries + 1):
            self._wait_for_turn()
            try:
                return self._translated(function, what)
            except _Passing as error:
                failure = error
            if attempt < self.retries:
                pause = max(self.backoff * 2**attempt, min(failure.pause or 0.0, _LONGEST_PAUSE))
                _log.info("%s: %s; next attempt in %g s", what, failure, pause)
                time.sleep(pause)
        times = "once" if self.retries == 0 else f"{self.retries + 1} times"
        raise DownloadError(
            f"{what}: {failure} (tried {times}); call again later, files that have come are not fetched again",
            failure.status,
        )

    def _translated(self, function, what):
        """Call, with errors sorted into those that may pass and the others."""
        from requests import exceptions

        try:
            return function()
        except (AstroganError, _Passing):
            raise
        except WrongContentError as error:
            raise _Passing(str(error)) from error
        except exceptions.HTTPError as error:
            raise _of_status(error.response, what) from error
        except exceptions.Timeout as error:
            raise _Passing(f"no answer within {self.timeout:g} s") from error
        except (exceptions.MissingSchema, exceptions.InvalidSchema, exceptions.InvalidURL) as error:
            raise DownloadError(f"{what} is no address that can be asked: {error}; check `server`") from error
        except exceptions.RequestException as error:
            raise _Passing(_reason(error)) from error

    def _once(self, url, output, check):
        """One attempt: the body to the file, its length and content looked at."""
        timeout = (min(self.timeout, _CONNECT), self.timeout)
        with self._session().get(url, stream=True, timeout=timeout) as response:
            response.raise_for_status()
            came = 0
            # Pooch's temporary file can be read by its owner only; a new one has the permissions of any other.
            Path(output).unlink(missing_ok=True)
            with _new_file(output) as stream:
                for chunk in response.iter_content(_CHUNK):
                    _write(stream, chunk, output)
                    came += len(chunk)
            announced = response.headers.get("Content-Length", "")
            plain = response.headers.get("Content-Encoding", "identity") == "identity"
            if plain and announced.isdigit() and came != int(announced):
                raise WrongContentError(f"the file ends after {came} of {announced} bytes")
        if check is not None:
            try:
                check(output)
            except WrongContentError:
                raise
            except (ValueError, OSError, EOFError) as error:
                raise WrongContentError(f"{error}{_seen(output)}") from error

    def _session(self):
        if self._given is not None:
            return self._given
        if self._own is None:
            import requests

            from astrogan import __version__

            self._own = requests.Session()
            self._own.headers["User-Agent"] = f"astrogan/{__version__}"
        return self._own

    def _wait_for_turn(self):
        if self.rate is not None:
            pause = self._last + 1 / self.rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
        self._last = time.monotonic()


# ---- what goes wrong ----------------------------------------------------------------------------------------------


def _of_status(response, what):
    """The error that an HTTP status is."""
    status, reason = response.status_code, response.reason or ""
    text = f"HTTP {status} {reason}".strip()
    if status in _TEMPORARY:
        return _Passing(text, status, _retry_after(response))
    remedy = {
        401: "the service wants a login: give a Downloader with a session that has one",
        403: "the service refuses; you may have asked too much of it: wait, and lower `rate`",
        404: "there is no such file; the position may lie outside of the survey, or the release have another layout",
    }.get(status, "check the arguments; the service does not know what to do with them")
    return DownloadError(f"{what}: {text}; {remedy}", status)


def _retry_after(response):
    """Seconds that the server asks to wait, or `None`."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, IndexError):
        return None


def _reason(error):
    """One line of what requests says, which nests its causes deeply."""
    text = " ".join(str(error).split())
    for pattern in (r"IncompleteRead\((\d+) bytes read, (\d+) more expected", r"(\d+) bytes missing"):
        if re.search(pattern, text):
            return "the connection ended before the file did"
    return f"no connection ({text[:160]})"


def _seen(path):
    """What an error page says, where one came in the place of a file."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(4000)
    except OSError:
        return ""
    if not re.match(rb"\s*(<|\{|[A-Za-z ]{12})", start) or start.startswith(b"SIMPLE "):
        return ""
    return f"; the server sent a text: {page_text(start.decode('utf-8', 'replace'))!r}"


def page_text(page):
    """What a reader sees of a page, its beginning."""
    return " ".join(re.sub(r"(?s)<(script|style|head)\b.*?</\1>|<[^>]*>", " ", page).split())[:200]


def _new_file(path):
    try:
        return open(path, "wb")
    except OSError as error:
        raise _cannot_write(path, error) from error


def _write(stream, chunk, path):
    try:
        stream.write(chunk)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path, error):
    reason = error.strerror or str(error) or type(error).__name__
    return ImageWriteError(
        f"{str(Path(path).parent)!r} cannot be written to: {reason}; free space or name another folder, and call "
        "again: what has come is not fetched again"
    )


# ---- small things -------------------------------------------------------------------------------------------------


def need_pooch():
    """The package pooch, or the error that says how to get it."""
    try:
        import pooch
    except ImportError as error:
        raise MissingDependencyError(
            "fetching files needs pooch: run `pip install 'astrogan[data]'` (or `pip install pooch`)"
        ) from error
    return pooch


def sha256(path):
    """Hexadecimal SHA-256 of a file."""
    import hashlib

    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_folder(folder):
    """Make a folder and those above it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageWriteError(
            f"folder={str(folder)!r} cannot be made: {error.strerror or error}; name another one"
        ) from error


def server_url(server):
    """A server's address, without the slash at its end."""
    if not isinstance(server, str) or not re.match(r"https?://[^/\s]", server):
        raise InputError(f"server={server!r} must be an address such as 'https://data.sdss.org/sas'")
    return server.rstrip("/")


@contextlib.contextmanager
def _silent(pooch):
    """Pooch tells of each file on the standard error stream, thousands of them."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _number(name, value, *, above):
    good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < 0 or (above is not None and value <= above):
        raise InputError(f"{name}={value!r} must be a {'positive' if above is not None else 'non-negative'} number")
    return float(value)
