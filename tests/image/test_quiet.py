"""Warnings of threads that work beside each other."""

import threading
import warnings

import pytest

from astrogan.image._quiet import quiet, recorded


def test_each_thread_hears_its_own_warnings():
    start, heard = threading.Barrier(4), {}

    def work(name):
        start.wait()
        with recorded() as outer:
            for k in range(50):
                warnings.warn(f"{name} {k}", stacklevel=1)
                with quiet():
                    warnings.warn("not heard", stacklevel=1)
            with recorded() as inner:
                warnings.warn(f"{name} within", stacklevel=1)
        heard[name] = [str(item.message) for item in outer], [str(item.message) for item in inner]

    before = warnings.showwarning, list(warnings.filters)
    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (warnings.showwarning, warnings.filters) == before
    for name, (outer, inner) in heard.items():
        assert outer == [f"{name} {k}" for k in range(50)]
        assert inner == [f"{name} within"]


def test_a_thread_that_records_nothing_warns_as_before():
    inside, done = threading.Event(), threading.Event()

    def other():
        with recorded():
            inside.set()
            done.wait()

    thread = threading.Thread(target=other)
    with warnings.catch_warnings(record=True) as heard:
        thread.start()
        inside.wait()
        warnings.warn("mine", stacklevel=1)
        done.set()
        thread.join()
    assert [str(item.message) for item in heard] == ["mine"]


def test_an_error_leaves_the_filters_as_they_were():
    before = warnings.showwarning, list(warnings.filters)
    with pytest.raises(ValueError, match="no"), recorded():
        raise ValueError("no")
    assert (warnings.showwarning, warnings.filters) == before
