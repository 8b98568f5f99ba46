"""Task distributions, one a file."""
