"""Transformed histories."""
