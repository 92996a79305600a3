"""The operators: they carry an image in its container to a backend and back."""
