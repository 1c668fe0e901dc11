"""Dagster assets, one file per stage: thin shells that read a slice, call a pure function and write a slice."""
