"""Pages that show single answers, from records only; no page loads a model or anything else.

    rows = [TracedRow(prompt, tokens, grade="right", setting="routed")]
    trace_page(rows, Path("runs/route/trace.html"), "Who chose which token", {"base": "base-0"})

    trace    who chose each token of an answer, and how likely either model had found it

Not here: figures of many answers (`probes.plots`), the verdict's text (`steering.verdict.page`).
"""

from probes.report.trace import CHOOSERS, TracedRow, TracedToken, trace_page

__all__ = ["CHOOSERS", "TracedRow", "TracedToken", "trace_page"]
