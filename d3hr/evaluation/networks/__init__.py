"""The networks behind the names of students."""
