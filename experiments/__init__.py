"""Command lines: `python -m experiments.NAME [PRESET] [SETTINGS]`."""
