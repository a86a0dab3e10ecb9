"""The commands, a file each: their arguments, and what they do."""
