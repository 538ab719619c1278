"""Sphinx extensions for these pages: formulas, executed pages, the op reference, the gallery."""
