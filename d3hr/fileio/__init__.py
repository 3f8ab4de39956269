"""Files that are written whole or not at all, carry checksums, are locked while a run works on them, and are read within limits."""
