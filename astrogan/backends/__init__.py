"""Backends that come with astrogan; they register through the same hook as everybody else's."""
