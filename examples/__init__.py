"""Runnable examples of Ronghe."""
