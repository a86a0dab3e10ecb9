"""The calls of a gallery, over HTTP. Nothing else in the library knows HTTP."""
