"""What `livesr check --hardware` says of the emitters that a raw group shows.

Owns what is plausible of them. Takes no frame.
"""

from __future__ import annotations

from livesr.check.hardware import Looked, Measured
from livesr.modalities.storm.monitors import FRAMES, middle, misfits
from livesr.modalities.storm.reconstructor import STORMReconstructor


def emitters(looked: Looked) -> Measured:
    """Localise the last group, and return how many emitters a frame shows, and in which density."""
    running = looked.path.running()
    assert running is not None
    running.add(looked.stacks[-1])
    assert running.localisations is not None
    found = len(running.localisations)
    advice = (
        "" if found else "No emitter was found: focus, laser, EM gain, or threshold in rig.yaml."
    )
    n_raw = looked.rig.raw_frames(looked.channel)
    seen = f"{found / n_raw:.1f} a frame, {running.emitters_per_um2 or 0:.2f} per um2"
    return Measured("localisations", seen, "ok" if found else "warning", advice)


def settings(looked: Looked) -> Measured:
    """Return whether the raw groups go with the camera and the optics of rig.yaml."""
    reconstructor = looked.path.reconstructor
    assert isinstance(reconstructor, STORMReconstructor)
    frames = [middle(f) for stack in looked.stacks for f in stack.came]
    said = ". ".join(misfits(frames[:FRAMES], reconstructor.localiser))
    if not said:
        return Measured("camera and optics", "as in rig.yaml", "ok", "")
    return Measured("camera and optics", "not as in rig.yaml", "warning", f"Here {said}.")
