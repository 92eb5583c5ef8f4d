"""What all tests share: where the data sets lie, and threads that do not spin."""

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before PyTorch is loaded; see cli.main
os.environ.setdefault("CROSSLAYER_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
