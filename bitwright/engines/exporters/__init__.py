"""Plan-only exports: the same plan in other tools' own syntax, names exact and anchored. See `catalog.EXPORTERS`."""
