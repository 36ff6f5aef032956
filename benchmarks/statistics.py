"""How well the tests of ``harness compare`` keep their promises: ``python benchmarks/statistics.py [--comparisons N]``.

The simulation is in ``simulation.py``. A script's folder comes first on Python's path, so whatever a script of this folder
imports finds this file where it means Python's own ``statistics``; it gets that one.
"""

import sys

if __name__ == "__main__":
    from simulation import main

    sys.exit(main())
else:
    import sysconfig
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    _spec = PathFinder.find_spec("statistics", [sysconfig.get_path("stdlib")])
    assert _spec is not None and _spec.loader is not None
    sys.modules[__name__] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[__name__])
