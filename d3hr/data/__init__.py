"""Real images by class: where they come from, decoded within limits, read in bounded memory."""
