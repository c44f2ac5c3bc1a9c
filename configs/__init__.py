"""One module per experiment, one documented function per preset."""
