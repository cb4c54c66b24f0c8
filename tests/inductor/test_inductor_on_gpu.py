"""``torch.compile(mode="max-autotune")`` on a real device with the integration."""

import pytest
import torch
from torch._inductor import config

from autotune_rlm import Store
from autotune_rlm.integrations import inductor


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA or AMD GPU")
def test_a_product_is_right_and_few_choices_are_timed(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(config, "max_autotune_gemm_backends", "ATEN,TRITON")
    a, b = (torch.randn(2048, 2048, device="cuda", dtype=torch.float16) for _ in range(2))
    with Store(":memory:") as store:
        with torch.no_grad(), inductor.enabled(store=store, budget=3) as active:
            result = torch.compile(torch.mm, mode="max-autotune", dynamic=False)(a, b)
        known = [o for task in store.tasks() for o in store.observations(task)]
    assert torch.allclose(result.float(), a.float() @ b.float(), atol=0.5, rtol=1e-2)
    assert 2 <= active.summary.measured == len(known) <= 4
    assert all(o.measurement.value > 0 for o in known)
