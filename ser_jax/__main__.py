import sys

from ser_jax.cli import main

sys.exit(main())
