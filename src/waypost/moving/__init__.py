"""Moving a package to another registry without anyone noticing: comparing, changing the line, watching, going back."""
