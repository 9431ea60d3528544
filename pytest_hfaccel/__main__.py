"""`python -m pytest_hfaccel`: the command `hfaccel`."""

from pytest_hfaccel.cli import main

raise SystemExit(main())
