"""`torch.compile` in mode `max-autotune`: templates ranked before they are generated and compiled.

TorchInductor lists tens to hundreds of configurations of its Triton templates for each matrix product,
convolution and flex attention, compiles and times them all beside the library's kernel, and takes the
fastest. With this integration it compiles and times the library's kernel and the few templates that
the model ranks first. What Inductor measured goes to the store and teaches the model.

    with autotune_rlm.integrations.inductor.enabled():
        compiled = torch.compile(model, mode="max-autotune")
        compiled(x)
"""

from autotune_rlm.integrations.inductor._enable import disable, enable, enabled
from autotune_rlm.integrations.inductor._session import Session, Summary

__all__ = ["Session", "Summary", "disable", "enable", "enabled"]
