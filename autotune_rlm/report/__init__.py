"""How right the surrogate was: the accuracy log as tables, figures and one HTML page.

``summarize`` needs nothing but numpy; figures and the page need matplotlib and jinja2 (the extra
``plot``), ``write_tensorboard`` needs tensorboard.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
