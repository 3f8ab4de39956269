"""The diffusion prior: its networks, schedule, presets and training."""
