"""Figures of a comparison, drawn with matplotlib: inline for the page, or as PNG, SVG and PDF.

Every function that draws takes plain dataclasses of ``shapes``, knows nothing of runs, and gives back a matplotlib
``Figure``. ``drawing`` turns one into an inline SVG whose text is text and whose colours follow the page, or into files.
"""
