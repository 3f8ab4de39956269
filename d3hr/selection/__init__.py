"""Which real images of a class are taken: their features, and the rules that choose K of N."""
