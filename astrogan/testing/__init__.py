"""For authors of backends: the conformance kit."""

from astrogan.testing.conformance import CheckReport, check_backend, example_observation

__all__ = ["CheckReport", "check_backend", "example_observation"]
