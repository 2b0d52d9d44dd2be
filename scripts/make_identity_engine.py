"""Write engines/identity anew: `python scripts/make_identity_engine.py [FOLDER]`.

Needs the `dev` or `train` extra.
"""

from __future__ import annotations

import sys
from pathlib import Path

from livesr.live.inference.identity import identity_engine

if __name__ == "__main__":
    folder = (
        Path(sys.argv[1])
        if len(sys.argv) > 1
        else Path(__file__).resolve().parents[1] / "engines" / "identity"
    )
    print(f"{identity_engine(folder)} in {folder}")
