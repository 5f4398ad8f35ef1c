"""Ensemble -> soft targets -> the loss."""
