"""Files: whole or not at all, with checksums, locked while a run works on them, read within limits."""
