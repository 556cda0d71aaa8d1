"""Look into a run: what it and its task have to show, as one HTML page."""
