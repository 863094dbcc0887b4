"""`python -m sandbox.demo`."""

import sys

from sandbox.demo.demo import main

sys.exit(main())
