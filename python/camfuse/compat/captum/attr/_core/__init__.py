"""Attributions."""
