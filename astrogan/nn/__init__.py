"""Networks: torch modules that know nothing of files, units or training."""
