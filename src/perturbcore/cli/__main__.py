import sys

from perturbcore.cli import main

sys.exit(main())
