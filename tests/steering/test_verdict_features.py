"""The stage of dictionaries, on activations made by hand."""

import numpy as np
import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata

from probes.sae import load_sae
from probes.sae.active import Rows
from steering.verdict.rules import pick
from steering.verdict.stages.features import of_nu

SITE = "blocks.1.hook_resid_post"


def test_the_share_is_compared_with_another_seeds_where_there_is_one(tmp_path):
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=8, d_sae=8, metadata=SAEMetadata(hook_name=SITE)))
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(8))
        sae.W_dec.copy_(torch.eye(8))
        sae.threshold.fill_(0.5)
    sae.save_model(tmp_path / "sae")
    rng = np.random.default_rng(0)
    tuned = (rng.uniform(1, 2, (600, 8)) * (rng.random((600, 8)) < 0.4)).astype(np.float32)
    base, again = tuned.copy(), tuned.copy()
    base[:, :3], again[:, :1] = 0, 0
    names = np.array([f"p{i // 20:02}" for i in range(600)])
    x = {
        name: Rows(SITE, values, names, np.zeros(600, int), np.arange(600) % 20)
        for name, values in (("base", base), ("tuned", tuned), ("again", again))
    }
    about = {"model": "base / tuned", "kind": "tuned's dictionary"}
    rows = of_nu(dict.fromkeys(x, load_sae(tmp_path / "sae")), x, 0)
    beyond = pick(rows, "nu below 0.5, beyond another seed", **about)
    assert beyond.value == pytest.approx(2 / 8)
    assert (beyond.n, beyond.site, beyond.note) == (30, SITE, "8 latents")
    assert pick(rows, "nu below 0.5", **about).value == pytest.approx(3 / 8)
    del x["again"]
    rows = of_nu(dict.fromkeys(x, load_sae(tmp_path / "sae")), x, 0)
    assert {r.measure for r in rows} == {"nu below 0.5", "nu median"}
