"""Attributions of layers."""
