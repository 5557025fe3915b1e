"""``python -m camfuse.cli``."""

from camfuse.cli import main

raise SystemExit(main())
