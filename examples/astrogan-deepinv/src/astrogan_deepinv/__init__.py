"""Denoisers of deepinv as restorers of astrogan."""
