"""One file a family of routes; each holds one `router`."""
