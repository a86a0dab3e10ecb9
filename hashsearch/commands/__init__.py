"""The commands, one file each: arguments in, calls to the library, text or JSON out."""
