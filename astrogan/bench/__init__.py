"""Benchmarks: each prints its peer, measured in the same run, beside astrogan."""
