"""The sections of the page, one a file: each takes the material and gives back what stands in it, as plain blocks."""
