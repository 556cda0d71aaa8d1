"""The training loop, what it is told (config), what it says (metrics, curves) and what it keeps (checkpoint)."""
