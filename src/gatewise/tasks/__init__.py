"""What gatewise can be trained to do, one file a task."""
