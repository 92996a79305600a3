"""What is fuzzed, in bytes: a target lets nothing out but the errors that astrogan raises on purpose.

`read_file` and `load_file` are run on bytes that were made by hypothesis (the tests beside this file) and by
libFuzzer (``run_atheris.py``). `image_seeds` and `weight_seed` are the good files that the damage starts from.
"""

import functools
import hashlib
import io
import json
import os
import random
import tempfile
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits

from astrogan.exceptions import AstroganError
from astrogan.image.read import read_bands, read_image
from astrogan.weights import describe, load_weights, read_card
from astrogan.weights.card import card_text

MAX_PIXELS = 10**5
BLOCK = 2880

# Cards whose values decide where pixels are, what they mean and how they are unpacked.
KEYWORDS = [
    *("SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "PCOUNT", "GCOUNT", "GROUPS", "EXTEND"),
    *("BSCALE", "BZERO", "BLANK", "BUNIT", "EXTNAME", "EXTVER", "TFIELDS", "TFORM1", "TTYPE1", "TTYPE2", "TFORM2"),
    *("TSCAL1", "TZERO1", "THEAP", "ZIMAGE", "ZCMPTYPE", "ZBITPIX", "ZNAXIS", "ZNAXIS1", "ZNAXIS2", "ZTILE1", "ZTILE2"),
    *("ZVAL1", "ZVAL2", "ZNAME1", "ZBLANK", "ZSCALE", "ZZERO", "ZQUANTIZ", "ZDITHER0", "ZMASKCMP", "ZSIMPLE"),
    *("CTYPE1", "CTYPE2", "CRVAL1", "CRPIX1", "CD1_1", "CD1_2", "CDELT1", "PC1_1", "WCSAXES", "A_ORDER", "A_2_0"),
    *("LONPOLE", "EQUINOX", "RADESYS", "PV1_1", "CPDIS1", "DP1", "FILTER", "BAND", "UTYPE", "IMAGETYP", "AGFLAGS"),
    *("AGBANDS", "SATURATE", "TELESCOP", "MP_BAD", "HISTORY", "COMMENT", "CONTINUE", "INHERIT", "CHECKSUM", "END"),
]
VALUES = [
    *("0", "1", "2", "3", "7", "8", "16", "-32", "64", "-1", "-8", "99", "1000", "65536", "2147483648"),
    *(
        "9223372036854775807",
        "-9223372036854775808",
        "99999999999999999999",
        "1E400",
        "-1E-300",
        "1.5",
        "NaN",
        "T",
        "F",
    ),
    *("''", "'", "'adu'", "'nmgy / s'", "'IMAGE'", "'BINTABLE'", "'TABLE'", "'A3DTABLE'", "'MASK'", "'UNCERT'"),
    *("'PSFIMAGE'", "'FLAGS'", "'IVAR'", "'RICE_1'", "'GZIP_2'", "'HCOMPRESS_1'", "'PLIO_1'", "'NOCOMPRESS'"),
    *(
        "'COMPRESSED_DATA'",
        "'GZIP_COMPRESSED_DATA'",
        "'1PB(99999999)'",
        "'1QB(4)'",
        "'2147483647E'",
        "'0A'",
        "'BYTEPIX'",
    ),
    *("'NO_DITHER'", "'SUBTRACTIVE_DITHER_2'", "'RA---TAN-SIP'", "'DEC--ZPN'", "'GLON-TPV'", "'LOOKUP'", "'FREQ'"),
    *("'StdDevUncertainty'", "'1,2,3'", "'NAXIS: 2'", "(1, 2)", "/", "\xff", ""),
]


# ---- good files --------------------------------------------------------------------------------------------------


@functools.cache
def image_seeds():
    """Small good files of every kind that is read, by name."""
    from PIL import Image

    rng = np.random.default_rng(3)
    data = rng.normal(10, 1, (9, 11)).astype("f4")
    sky = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 5.0}
    sky |= {"CRPIX2": 5.0, "CD1_1": -1e-4, "CD2_2": 1e-4, "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5}
    of_image = fits.Header({"BUNIT": "adu", "FILTER": "g", "SATURATE": 12.0, **sky})
    empty = fits.PrimaryHDU()
    companions = [
        fits.ImageHDU((data > 11).astype("u1"), name="MASK"),
        fits.ImageHDU(data, fits.Header({"UTYPE": "StdDevUncertainty"}), name="UNCERT"),
        fits.ImageHDU(np.ones((3, 3), "f4") / 9, name="PSFIMAGE"),
        fits.ImageHDU((data > 11).astype("u1"), fits.Header({"AGFLAGS": "1 bad"}), name="FLAGS"),
        fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])]),
    ]
    bands = [fits.ImageHDU(data, fits.Header({"FILTER": band, "BUNIT": "adu"}), name=band) for band in "gri"]
    scaled = fits.Header({"BSCALE": 0.5, "BZERO": 10.0, "BLANK": 5})
    seeds = {
        "image": [fits.PrimaryHDU(data, of_image), *companions],
        "bands": [empty, *bands],
        "cube": [fits.PrimaryHDU(np.stack([data] * 3), of_image)],
        "unsigned": [fits.PrimaryHDU(np.arange(20, dtype="u2").reshape(4, 5))],
        "scaled": [empty, fits.ImageHDU(np.arange(20, dtype="i4").reshape(4, 5), scaled, do_not_scale_image_data=True)],
        "doubles": [fits.PrimaryHDU(data.astype("f8"), of_image)],
    }
    whole = (rng.integers(0, 200, (20, 16))).astype("i2")
    for name in ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"):
        seeds[name] = [empty, fits.CompImageHDU(whole, of_image, compression_type=name, name="PACKED")]
    seeds["quantized"] = [empty, fits.CompImageHDU(np.tile(data, (4, 4)), of_image, compression_type="RICE_1")]
    out = {name: _bytes_of(hdus) for name, hdus in seeds.items()}
    out["gz"] = _gzip(out["unsigned"])
    colours = Image.fromarray(rng.integers(0, 255, (12, 14, 3)).astype("u1"))
    for form in ("JPEG", "PNG", "TIFF"):
        stream = io.BytesIO()
        colours.save(stream, form)
        out[form] = stream.getvalue()
    return out


def _bytes_of(hdus):
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


def _gzip(data):
    import gzip

    return gzip.compress(data, mtime=0)


@functools.cache
def weight_seed():
    """(card, bytes of tensors) of good weights."""
    import safetensors.torch
    import torch

    card = {
        "format": 1,
        "name": "x",
        "backend": "nafnet",
        "role": "restorer",
        "architecture": {"width": 8, "blocks": [1, 2]},
        "bands": 2,
        "band_names": ["g", "r"],
        "ranges": {"fwhm": [2.0, 8.0]},
        "stretch": {"stretch": "asinh-sigma", "sigma": 1.0},
        "calibration": {"scale": [1.0, 1.1], "coverage68": 0.68},
        "metrics": [{"method": "x", "psnr": 30.5}],
        "data": [{"name": "a", "origin": "b", "licence": "c"}],
        "parents": [{"name": "a", "sha256": "0" * 64, "share": 0.5}],
        "seed": 0,
        "created": "2026-11-21",
    }
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64), "c": torch.ones(3).half()}
    return card, safetensors.torch.save(tensors)


# ---- targets -----------------------------------------------------------------------------------------------------

OPTIONS = [
    {},
    {"unit": "adu"},
    {"unit": "adu", "hdu": 1},
    {"unit": "adu", "hdu": 0},
    {"unit": "", "section": (slice(1, 4), slice(2, 5))},
    {"unit": "adu", "uncertainty": "UNCERT", "uncertainty_type": "ivar"},
    {"unit": "adu", "mask": 1, "saturation": "header"},
    {"unit": "adu", "uncertainty": False, "mask": False},
]


@functools.cache
def _folder():
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="astrogan-fuzz-", dir=where)


def read_file(data, options=OPTIONS[1], read=read_image):
    """Read bytes as an image file: the image, or the error that says what is wrong with it."""
    path = Path(_folder().name) / "image.fits"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = read(path, max_pixels=MAX_PIXELS, **options)
        except AstroganError as error:
            return checked(error)
    for image in found.values() if isinstance(found, dict) else [found]:
        check_image(image)
    return found


def check_image(image):
    """What holds for each image that was read, whatever the file."""
    assert image.data.dtype in (np.float32, np.float64)
    assert image.data.dtype.isnative
    assert image.data.ndim in (2, 3)
    assert 0 < image.data.size <= MAX_PIXELS
    assert image.unit is not None
    assert image.mask is None or (image.mask.dtype == bool and image.mask.shape == image.data.shape)
    if image.mask is None:
        assert np.isfinite(image.data).all()
    if image.uncertainty is not None:
        assert image.uncertainty.array.shape == image.data.shape


def fuzz_image(data):
    """A target for libFuzzer: the first byte chooses the arguments."""
    if data:
        options = OPTIONS[data[0] % len(OPTIONS)]
        bands = data[0] >= 240
        read_file(data[1:], {"unit": "adu"} if bands else options, read_bands if bands else read_image)


def load_file(card, tensors, *, sealed=True):
    """Load weights whose card and tensors are these bytes; ``sealed``: with the checksums that they should have."""
    path = Path(_folder().name) / "x.safetensors"
    path.write_bytes(tensors)
    path.with_suffix(".json").write_bytes(seal(card, tensors) if sealed else card)
    try:
        describe(read_card(path))
        return load_weights(path)
    except AstroganError as error:
        return checked(error)


def checked(error):
    """What holds for each error: it is one line."""
    assert str(error)
    assert "\n" not in str(error)
    return error


def seal(card, tensors):
    """A card with right checksums, so that what it says is believed; as it is where it is no card."""
    try:
        content = json.loads(card)
        return card_text({**content, "sha256": hashlib.sha256(tensors).hexdigest(), "size": len(tensors)})
    except (ValueError, TypeError, RecursionError):
        return card


def fuzz_weights(data):
    """A target for libFuzzer: a byte that says whether to seal, the card up to a zero byte, the tensors."""
    card, _, tensors = data[1:].partition(b"\0")
    load_file(card, tensors, sealed=not data[:1] or data[0] < 200)


# ---- damage ------------------------------------------------------------------------------------------------------


def set_card(data, hdu, keyword, value):
    """A FITS file with another value in one header, of the card of that keyword or of a new one; bytes in and out."""
    starts = [i for i in range(0, len(data), BLOCK) if data[i : i + 9] in (b"SIMPLE  =", b"XTENSION=")]
    if not starts:
        return data
    start = starts[hdu % len(starts)]
    end = start
    while end < len(data) and data[end : end + 8] != b"END     ":
        end += 80
    card = f"{keyword:8}= {value:>20}".encode("latin-1")[:80].ljust(80)
    cards = [data[i : i + 80] for i in range(start, min(end, len(data)), 80)]
    where = next((i for i, old in enumerate(cards) if old[:8].strip() == keyword.encode()), None)
    cards = [*cards, card] if where is None else [*cards[:where], card, *cards[where + 1 :]]
    header = b"".join([*cards, b"END".ljust(80)])
    after = start + -(-(end + 80 - start) // BLOCK) * BLOCK
    return data[:start] + header + b" " * (-len(header) % BLOCK) + data[after:]


def mutate_image(data, size, seed):
    """A custom mutator for libFuzzer: it turns bytes as always, or changes cards."""
    import atheris

    rng = random.Random(seed)
    if rng.random() < 0.3 or len(data) < 100:
        return atheris.Mutate(data, size)
    body = bytes(data[1:])
    for _ in range(rng.randint(1, 3)):
        body = set_card(body, rng.randrange(6), rng.choice(KEYWORDS), rng.choice(VALUES))
    return (bytes(data[:1]) + body)[:size]


OTHER_VALUES = [
    *(None, True, -1, 0, 1, 2, 2**31, 2**53, 2**63, 2**64, 10**30, -0.5, 1e308, float("nan"), float("inf")),
    *(
        "",
        "x",
        "../x",
        "F32",
        "F16",
        "F64",
        "BF16",
        "I64",
        "U64",
        "BOOL",
        "C64",
        "F8_E5M2",
        "F4",
        "\ud800",
        "2026-13-01",
    ),
    *([], [0], [1, 2], [0, 2**63], [2**32, 2**32], [[[]]], {}, {"": 0}, {"a": {}}, {"__metadata__": {"a": 1}}),
]


def change_json(content, rng):
    """A copy of a JSON value with one item replaced, doubled or taken out, at a random place."""
    content = json.loads(json.dumps(content))
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return content
        key = rng.choice(keys)
        if not isinstance(place[key], dict | list) or rng.random() < 0.3:
            break
        place = place[key]
    if rng.random() < 0.15:
        del place[key]
    elif rng.random() < 0.2 and isinstance(place, dict):
        place[rng.choice(["", "a", "__metadata__", "é", "a" * 300])] = place[key]
    else:
        place[key] = rng.choice(OTHER_VALUES)
    return content


def change_tensors(data, rng):
    """The bytes of a safetensors file with another header, whose length may lie."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(change_json(json.loads(data[8 : 8 + size]), rng)).encode()
    length = len(header) if rng.random() < 0.9 else rng.choice([0, 2**22, 2**40, 2**63, len(header) - 1])
    return length.to_bytes(8, "little") + header + data[8 + size :]


def mutate_weights(data, size, seed):
    """A custom mutator for libFuzzer: it turns bytes as always, or changes what the card or the tensors say."""
    import atheris

    rng = random.Random(seed)
    card, _, tensors = data[1:].partition(b"\0")
    kind = rng.random()
    try:
        if kind < 0.3:
            card = json.dumps(change_json(json.loads(card), rng)).encode()
        elif kind < 0.6:
            tensors = change_tensors(tensors, rng)
        else:
            return atheris.Mutate(data, size)
    except (ValueError, TypeError, RecursionError):  # it is no JSON any more
        return atheris.Mutate(data, size)
    return (bytes(data[:1]) + card + b"\0" + tensors)[:size]
