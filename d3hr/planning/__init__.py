"""What a distillation will cost, said before anything runs."""
