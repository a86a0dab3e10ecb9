"""Jobs that change or check a gallery."""
