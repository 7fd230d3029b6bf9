"""Measure what a reasoning model does: its answers, its traces, its activations.

`probes` holds whatever could run on somebody else's finished transcripts and frozen checkpoints;
whatever changes a forward pass or a weight is in `steering`, which imports this package and is
never imported by it. The data flow from the first module to the last::

    records, intervals        what crosses module lines; an estimate
    columns, measurements     many estimates at once; an estimate's row
    datasets, frames          records for Hugging Face, for pandas and for a notebook
    tasks, verify             problems, their graders, and the pool that runs them
    models, generate          a model and its sites; the decoding engine
    served                    answers of a model behind an OpenAI-compatible server
    capture                   activations out of a forward pass or a generation
    strategies, directions, sae    marked decisions, their directions; sparse dictionaries
    taxonomy                  the kinds of steps, found from the bottom up
    boundary                  pass@k, right and valid, of one model or two
    divergence, drift         where two models part, in what they say and in activations
    plots, report             figures and pages, from records only
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
DATA = next(p for p in (_PACKAGE.parent / "data", _PACKAGE / "_data") if p.is_dir())
"""What ships with the project: beside the packages in a checkout, inside this one in a wheel."""
