"""Figures of the evidence, from `probes.records.Measurement` rows and from nothing else.

    frame = pd.DataFrame([asdict(row) for row in rows])
    pass_at_k(frame, Path("runs/verdict/figures/pass_at_k"))     # writes .png and .svg

No figure loads a model, and each can be drawn again from the tables. Every number has its interval;
one colour means one thing in all of them (base blue, tuned orange, nulls grey), and the palette is
Okabe and Ito's, which colour-blind readers can tell apart. The same rows give the same SVG, byte
for byte. Where a figure's rows are missing, it says so instead of showing an empty frame.

    style        colours, panels, writing the files
    boundary     pass_at_k
    strategies   strategy_mix
    labellers    LABELLERS: kappa of each pair, and where they differ
    crossing     crossing: who decides, who executes
    directions   directions: AUC and cosine by layer; activation_shift
    steering     dose_response
    features     FEATURES: dictionaries, before and after
    summary      the main question at one look
    sweep        of a table of settings: leaderboard, heatmap, dose_response, side_effects
"""

from probes.plots.boundary import pass_at_k
from probes.plots.crossing import crossing
from probes.plots.directions import activation_shift, directions
from probes.plots.features import FEATURES
from probes.plots.steering import dose_response
from probes.plots.strategies import strategy_mix
from probes.plots.summary import summary

FIGURES = {
    "summary": summary,
    "pass_at_k": pass_at_k,
    "strategy_mix": strategy_mix,
    "crossing": crossing,
    "directions": directions,
    "dose_response": dose_response,
    "activation_shift": activation_shift,
}
"""Every figure by the name of its files."""

__all__ = [
    "FEATURES",
    "FIGURES",
    "activation_shift",
    "crossing",
    "directions",
    "dose_response",
    "pass_at_k",
    "strategy_mix",
    "summary",
]
