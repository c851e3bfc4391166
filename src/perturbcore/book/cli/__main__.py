import sys

from perturbcore.book.cli import main

sys.exit(main())
