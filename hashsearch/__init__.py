"""Image retrieval by semantic hashing: pictures to 256-bit codes to neighbours."""

__version__ = "0.1.0"
