"""Score every measure on organisms whose truth is known by construction, and print both.

    copies = shipped_copies([DATA / "organisms" / "chain"])
    cells = calibrate(copies, Path("runs/calibration"))
    print(markdown(cells))                      # the confusion matrix of every measure

A cell is one skill of one tuned copy: what is true of it (deployed, recombined, created, lost, no
gain, unknown), and what each measure says. The verdict has rules of its own; every other measure is
a score, and what makes a score say "deployed" is a threshold fixed on copies of other pretraining
seeds.

    copies          which copies there are, and their twins
    truth           what is true, from both halves of the entries and the twin
    evidence        what measures are made of, of a finished verdict
    scores          the number that each measure gives
    thresholds      numbers to words, by other seeds; the share that is right
    table           the confusion matrix
    running         all of it, copy by copy, resumable, several at a time
"""

from steering.calibration.copies import Copy, shipped_copies
from steering.calibration.running import calibrate
from steering.calibration.table import confusion, markdown
from steering.calibration.thresholds import Cell, agreement, judged, threshold
from steering.calibration.truth import Half, halves, truth

__all__ = [
    "Cell",
    "Copy",
    "Half",
    "agreement",
    "calibrate",
    "confusion",
    "halves",
    "judged",
    "markdown",
    "shipped_copies",
    "threshold",
    "truth",
]
