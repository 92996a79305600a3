"""Imaging surveys: their numbers, and galaxies as each of two surveys would see them."""

from astrogan.simulate.surveys.catalog import Filter, Survey, get_survey, list_surveys
from astrogan.simulate.surveys.fits_pairs import FitsPair, pairs_from_fits
from astrogan.simulate.surveys.pairs import (
    BENCHMARK_SEED,
    SurveyPair,
    SurveyStamp,
    benchmark_pairs,
    noise_kernel,
    simulate_pair,
    simulate_pairs,
    simulate_stamp,
)

__all__ = [
    "BENCHMARK_SEED",
    "Filter",
    "FitsPair",
    "Survey",
    "SurveyPair",
    "SurveyStamp",
    "benchmark_pairs",
    "get_survey",
    "list_surveys",
    "noise_kernel",
    "pairs_from_fits",
    "simulate_pair",
    "simulate_pairs",
    "simulate_stamp",
]
