"""What a distillation will cost, before it runs."""
