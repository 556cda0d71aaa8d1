"""Rooms that look into models and programs."""
