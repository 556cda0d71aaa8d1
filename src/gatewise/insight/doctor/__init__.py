"""The doctor: finds mistakes with sequences, in source and in a live model.

The half that reads source (`gatewise.insight.doctor.source`) runs nothing and needs no torch; the half that runs a
model (`gatewise.insight.doctor.live`) does. Both speak in the same `Finding`.
"""
