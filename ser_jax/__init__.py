"""ser_jax: speech-emotion recognition by transfer learning, in JAX."""

__version__ = "0.1.0"
