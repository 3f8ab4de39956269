"""The distilled set on disk: manifest, statistics, card, and how it is written, read and expanded."""
