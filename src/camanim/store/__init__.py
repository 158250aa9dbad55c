"""Results in files: saved, opened again, computed again and compared."""

from camanim.store.differences import Difference, diff
from camanim.store.format import is_result_path
from camanim.store.opening import load
from camanim.store.recomputation import Rerun, rerun
from camanim.store.saving import save

__all__ = ["Difference", "Rerun", "diff", "is_result_path", "load", "rerun", "save"]
