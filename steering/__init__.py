"""Change what a reasoning model does: its activations, its tokens, its weights.

`steering` imports `probes` and is never imported by it: base, steered, routed and trained models
all face the same instruments. From the first module to the last, each importing those before it::

    objectives                advantages and losses as functions of tensors
    interventions, controls   edits of the residual stream; the null of each
    evaluate                  one setting judged: a writer, a task, its verdicts
    features, vectors         a dictionary's features, trained vectors, as interventions
    own_directions            directions of strategies out of a model's own answers
    shards                    many answers, resumable: what was finished survives
    routing, decoding         tokens chosen by two models; by temperature and by vote
    training                  the loops: pretrain, rlvr
    organisms                 recipes: what is pretrained, what is rewarded, what is true
    elicitation               what a stated budget of supervision brings out
    verdict                   stages, rules and page of the main job
    sweep                     many settings judged, on many machines, nothing lost
    reach                     how far two models reach: sampled, re-tested, beside nulls
    calibration               the verdict scored on organisms whose truth is known
    cli                       the command line
"""
