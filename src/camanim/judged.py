"""What can be asked of the maps: whether they are to be believed, each layer by itself.

Each door is a call of the room that does the work, imported when the door is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from camanim.progress import Progress, silent
from camanim.result import Result

if TYPE_CHECKING:
    from camanim.checks import LabelRandomisation, Localisation, Randomisation
    from camanim.execution.forward import Precision
    from camanim.road import Imputer, Road
    from camanim.road.inference_settings import MemoryFormat
    from camanim.road.measures import Measure


class Judged(Result):
    """A result, and the doors to how far it can be trusted."""

    def score(
        self,
        seed: int = 0,
        repeats: int = 1,
        baseline: bool = True,
        percentiles: Sequence[float] = (20, 40, 60, 80),
        *,
        draws: int = 8,
        noise: float = 0.01,
        imputer: Imputer | None = None,
        batch_size: int | None = None,
        memory_format: MemoryFormat | None = None,
        precision: Precision | None = None,
        progress: Progress = silent,
    ) -> Road:
        """Score how well each layer's map explains the target with ROAD; the result stays in `road`.

        Parameters
        ----------
        seed : int
            Of the tie-break among equal pixels, of the noise on imputed pixels, and of random maps.
        repeats : int
            How often all is scored, with the seeds from `seed` on; 3 tell how far a score spreads.
        baseline : bool
            Whether random maps of each layer's own resolution are scored too.
        percentiles : sequence of float
            Shares of the pixels, in percent, that are *kept*.
        draws : int
            Random maps per resolution.
        noise : float
            Standard deviation of the noise on imputed pixels, in units of the network's input.
        imputer : Imputer, optional
            Fills removed pixels; by default each becomes the weighted mean of its neighbours, as ROAD
            has it (`camanim.road.MultigridImputer`).
        batch_size : int, optional
            Perturbed images per forward pass. By default this, and the next two, are found by a short
            measurement, once per machine and network; `Road.settings` says what was taken.
        memory_format : {"own", "contiguous", "channels_last"}, optional
            "own" is the network itself, the others are of a copy with its batch normalisations folded.
        precision : {"float32", "bfloat16", "float16"}, optional
            Of autocast. By itself half precision is taken only where it is faster and moves a few
            images' values by no more than 0.002.
        progress : Progress
            Called after every batch. When it raises `Cancelled`, the layers scored so far are kept
            and the others are NaN; where there is none yet, `Cancelled` is raised.

        Returns
        -------
        Road

        Raises
        ------
        ScoreError
            Where there is nothing to score, or a parameter is out of range.
        """
        from camanim.road import Scoring, score

        scoring = Scoring(
            seed,
            repeats,
            baseline,
            percentiles,
            draws=draws,
            noise=noise,
            imputer=imputer,
            batch_size=batch_size,
            memory_format=memory_format,
            precision=precision,
        )
        self.road = score(self, scoring, progress)
        return self.road

    def measure(
        self,
        name: str,
        imputation: str = "blur",
        *,
        steps: int = 20,
        seed: int = 0,
        progress: Progress = silent,
    ) -> Measure:
        """Measure the maps by what the prediction loses or keeps; the result stays in `measures`.

        Parameters
        ----------
        name : {"deletion", "insertion", "drop", "increase"}
            Area under the target's probability while the most relevant pixels are removed, or inserted
            into nothing (Petsiuk et al., BMVC 2018); or how much is lost of it, as a share, where only
            what the map lights is shown, and whether it is more (Chattopadhay et al., WACV 2018).
        imputation : {"blur", "mean", "road"}
            What stands in the place of removed pixels. Of drop and increase, maps fade into it; with
            "road" what is below half of the map's maximum is removed.
        steps : int
            Of the curves of deletion and insertion.
        seed : int
            Of the tie-break among equal pixels.
        progress : Progress

        Returns
        -------
        Measure

        Raises
        ------
        ScoreError
            For an unknown name or imputation, or where there is nothing to score.
        """
        from camanim.road.measures import measure

        found = measure(self, name, imputation, steps=steps, seed=seed, progress=progress)
        self.measures[found.label] = found
        return found

    def localise(self, mask: Any, *, label: int | None = None) -> Localisation:
        """Compare the maps with a mask of the object, (H, W) or (Z, Y, X) as the image.

        The result stays in `localisation`. For the parameters, and what raises `ScoreError`, see
        `camanim.checks.localise`.
        """
        from camanim.checks import localise

        self.localisation = localise(self, mask, label=label)
        return self.localisation

    def check_randomisation(
        self,
        *,
        steps: int | None = None,
        seed: int = 0,
        threshold: float = 0.5,
        progress: Progress = silent,
    ) -> Randomisation:
        """Shuffle the weights of a copy step by step, and see whether the maps change with them.

        The result stays in `randomisation`, a failure is noted in `notes`. For the parameters, and what
        raises `ScoreError`, see `camanim.checks.check_randomisation`.
        """
        from camanim.checks import check_randomisation, noted

        found = check_randomisation(
            self, steps=steps, seed=seed, threshold=threshold, progress=progress
        )
        self.notes[:] = noted(self.notes, self.randomisation, found)
        self.randomisation = found
        return found

    def check_labels(
        self,
        *,
        draws: int = 5,
        seed: int = 0,
        threshold: float = 0.9,
        progress: Progress = silent,
    ) -> LabelRandomisation:
        """Explain other classes, and see whether the maps change with them.

        The result stays in `labels`, a failure is noted in `notes`. For the parameters, and what raises
        `ScoreError`, see `camanim.checks.check_labels`.
        """
        from camanim.checks import check_labels, noted

        found = check_labels(self, draws=draws, seed=seed, threshold=threshold, progress=progress)
        self.notes[:] = noted(self.notes, self.labels, found)
        self.labels = found
        return found
