"""``python -m gatewise.cli``, and what torchrun starts."""

import sys

from gatewise.cli import main

sys.exit(main())
