"""Evaluation of a model: splits, faults in rows, figures."""
