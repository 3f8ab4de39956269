"""What a distilled set must beat. A baseline is a set like any other, made without the method under test."""
