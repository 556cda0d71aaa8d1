"""A report: one HTML file with charts that opens from disk, without a network."""
