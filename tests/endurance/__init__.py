"""Long runs against a whole server: ``python -m tests.endurance.one_peer`` and the other commands here."""

import sys
from pathlib import Path

# The harness is what the tests have on their path.
sys.path.insert(0, str(Path(__file__).parents[1]))
