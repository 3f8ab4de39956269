"""The commands: typed functions from what a person types to the library and back. They return what is to be shown and print nothing."""
