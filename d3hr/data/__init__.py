"""Real images by class: opening a source, decoding within limits, reading in bounded memory."""
