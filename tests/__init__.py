"""Tests of bitwright; `tests.strategies` holds the shared Hypothesis strategies."""
