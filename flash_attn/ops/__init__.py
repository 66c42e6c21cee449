"""Operators under the import paths that other projects know."""
