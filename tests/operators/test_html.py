"""What notebooks show of results: small tables, nothing in them that a browser would run."""

from html.parser import HTMLParser

import numpy as np
from astropy.nddata import CCDData
from astropy.wcs import WCS

from astrogan import Deblender
from astrogan.api import Observation
from astrogan.operators._html import html_table, paragraph
from astrogan.operators.diagnostics import diagnose

EVIL = "<script>alert('r')</script>"


class Page(HTMLParser):
    """Tags, text and rows of a page; every tag has to be closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.rows, self.text = [], set(), [], ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        assert not attrs
        self.open.append(tag)
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open[-1:] in (["td"], ["th"]):
            self.rows[-1][-1] += data


def field(count, bands=1):
    y, x = np.mgrid[:60, :60]
    places = [(8 + 14 * (k % 4), 8 + 14 * (k // 4)) for k in range(count)]
    clean = sum((80 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 6) for a, b in places), np.zeros(x.shape))
    data = clean + np.random.default_rng(0).normal(size=x.shape)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt = ("RA---TAN", "DEC--TAN"), (-1e-4, 1e-4)
    image = CCDData(data, unit="nJy", wcs=wcs)
    return Deblender("watershed")({EVIL[:bands]: image} if bands > 1 else image, places)


def test_table_escapes_everything_and_stops():
    page = Page(html_table({EVIL: [EVIL, 2, 3], "b": "xyz"}, most=2) + paragraph(EVIL))
    assert page.tags == {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert page.rows == [[EVIL, "b"], [EVIL, "x"], ["2", "y"]]
    assert page.text.endswith(EVIL)


def test_sources_show_what_the_catalog_says():
    result = field(3)
    page = Page(result._repr_html_())
    heads, *rows = page.rows
    assert heads == ["id", "x", "y", "ra [deg]", "dec [deg]", "flux_0 [nJy]", "blendedness", "flags"]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert [float(row[5]) for row in rows] == [float(f"{f.value:.4g}") for f in result.catalog["flux_0"]]
    assert "3 sources in an image of (60, 60)" in page.text


def test_flags_are_words():
    result = field(2)
    result.catalog["flags"] = [0, 1 | 4]
    assert [row[-1] for row in Page(result._repr_html_()).rows[1:]] == ["", "EDGE BLENDED"]


def test_many_sources_are_not_all_shown():
    page = Page(field(14)._repr_html_())
    assert len(page.rows) == 11
    assert page.text.endswith("and 4 more in .catalog")
    assert len(field(14)._repr_html_()) < 4000


def test_no_sources():
    noise = CCDData(np.random.default_rng(0).normal(size=(40, 40)), unit="adu")
    page = Page(Deblender("watershed", threshold=20)(noise)._repr_html_())
    assert len(page.rows) == 1
    assert "0 sources" in page.text


def test_names_of_bands_are_escaped():
    page = Page(field(1, bands=len(EVIL))._repr_html_())
    assert f"flux_{EVIL} [nJy]" in page.rows[0]


def test_diagnostics_show_a_line_a_band():
    data = np.random.default_rng(0).normal(size=(2, 40, 40)).astype(np.float32)
    observed = Observation(data, variance=np.ones_like(data), bands=(EVIL, "r"))
    report = diagnose(observed, np.zeros_like(data))
    page = Page(report._repr_html_())
    assert [row[0] for row in page.rows] == ["band", EVIL, "r"]
    assert [row[1] for row in page.rows[1:]] == [f"{value:.3f}" for value in report.reduced_chi2_per_band]
    assert report.summary() in page.text
