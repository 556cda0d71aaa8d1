"""Sequences and images from files, as NumPy arrays: nothing here imports torch."""
