"""Simulated galaxies, fields, surveys and noise."""
