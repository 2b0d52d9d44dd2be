"""What `livesr check --hardware` says of the emitters that a raw group shows.

Owns what is plausible of them. Takes no frame.
"""

from __future__ import annotations

from livesr.check.hardware import Looked, Measured


def emitters(looked: Looked) -> Measured:
    """Localise the last group, and return how many emitters a frame shows."""
    running = looked.path.running()
    assert running is not None
    running.add(looked.stacks[-1])
    assert running.localisations is not None
    found = len(running.localisations)
    advice = (
        "" if found else "No emitter was found: focus, laser, EM gain, or threshold in rig.yaml."
    )
    n_raw = looked.rig.raw_frames(looked.channel)
    return Measured(
        "localisations", f"{found / n_raw:.1f} a frame", "ok" if found else "warning", advice
    )
