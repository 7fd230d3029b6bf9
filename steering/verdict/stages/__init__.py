"""The stages of the verdict: each a function from the run's context to Measurement rows.

rollouts    sample base and tuned on the test split, or read what was recorded
boundary    pass@k right and valid, by skill and half of its entries
mix         which options are taken at each decision, before and after
crossing    when or how: one model decides, the other executes
sharpening  what lower temperature and voting alone would gain
directions  what tells a strategy apart before it is chosen, with every baseline
steered     the base pushed along its own directions, with every control
elicited    what a stated budget of supervised updates brings out
shift       activations of the two models on the same texts
"""
