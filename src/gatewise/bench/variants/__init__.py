"""The variants of the cell: their training step over that of the plain cell, and beside the same loop in Python."""
