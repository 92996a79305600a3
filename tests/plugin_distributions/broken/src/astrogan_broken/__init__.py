"""Fails on import, as a plugin does whose dependency changed under it."""

raise RuntimeError("the flux capacitor is missing")
