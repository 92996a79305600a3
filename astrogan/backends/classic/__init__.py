"""Classic methods, one file each."""
