"""From weight files to a loaded detector."""
