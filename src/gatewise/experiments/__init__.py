"""Experiments: many trainings under one question, their table and their figures."""
