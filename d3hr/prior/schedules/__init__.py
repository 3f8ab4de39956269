"""Noise schedules, of three kinds behind one interface."""
