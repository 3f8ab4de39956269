"""How good a distilled set is: a student trained on it, tested on real images."""
