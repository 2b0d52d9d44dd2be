"""Coverage-guided fuzzing of what comes from outside.

Bytes that are refused in a sentence or understood, whatever they are.

``pip install atheris``, then ``python tests/fuzz/fuzz.py READER -max_total_time=300``; READER is
one of readers.py, everything after it is libFuzzer's. Atheris has no wheels for Windows, so it is
no dependency; test_readers.py damages the same inputs with Hypothesis in the suite.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "support")]
with atheris.instrument_imports(include=["livesr"]):
    from fuzz.readers import READERS


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        sys.exit(f"usage: fuzz.py {{{','.join(READERS)}}} [options of libFuzzer]")
    reader = READERS[sys.argv.pop(1)]
    folder = Path(tempfile.mkdtemp(prefix="livesr-fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(reader.seeds(folder)):
        (corpus / f"seed-{number}").write_bytes(seed)

    def once(data: bytes) -> None:
        try:
            reader.read(data, folder)
        except reader.refusals:
            return

    atheris.Setup(
        [sys.argv[0], str(corpus), "-timeout=20", "-rss_limit_mb=4096", *sys.argv[1:]], once
    )
    atheris.Fuzz()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
