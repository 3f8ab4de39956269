"""The networks behind the names of students, one family a file."""
