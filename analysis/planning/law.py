"""Final loss of a sparse training from its size, sparsity and length: scaling laws, and fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hwsim import InputError

# Two forms of one law. In both, D enters as e·D^−f, and g cannot be learnt away.
FORMS = {
    "frantar": "L = (a·(1−S)^b + c)·N^−d + e·D^−f + g, N nonzero weights at the end",
    "average": "L = a·N̄^−d + e·D^−f + g, N̄ nonzero weights averaged over training",
}
_NAMES = {"frantar": ("a", "b", "c", "d", "e", "f", "g"), "average": ("a", "d", "e", "f", "g")}
# Residuals of the logarithm beyond this count linearly, as in Hoffmann et al. (2022), D.2.
_HUBER = 1e-3
_STARTS = 24


@dataclass(frozen=True)
class Point:
    """One training: nonzero weights at its end, sparsity then, examples (or tokens), final loss.

    Attributes:
        average: nonzero weights averaged over the steps; None for as many as at the end.
    """

    nonzero: float
    sparsity: float
    examples: float
    loss: float = float("nan")
    average: float | None = None


@dataclass(frozen=True)
class Law:
    """A law with its coefficients, and where it comes from.

    Attributes:
        form: a key of FORMS.
        coefficients: by name.
        n_unit, d_unit: N and D are counted in these: a million weights is 1e6.
        counted: what D counts.
        source: of the coefficients.
        range: name (nonzero, sparsity, examples) → (low, high) of the points of the fit.
        draws: further sets of coefficients, refitted on resampled points, for intervals.
        error: mean share by which it is off on its points; stands for draws where there are none.
        noise: mean share by which points of one setting are off their mean; None if not known.
    """

    form: str
    coefficients: Mapping[str, float]
    n_unit: float = 1e6
    d_unit: float = 1e9
    counted: str = "examples"
    source: str = ""
    range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    draws: tuple[Mapping[str, float], ...] = ()
    error: float = 0.0
    noise: float | None = None

    @property
    def laws(self) -> list[Law]:
        """Itself, and the law of each draw; without draws two that end higher and lower.

        What such a pair shares, an error of the floor, does not decide between two candidates; an
        error of what size and length add does.
        """
        if self.draws:
            return [self, *(replace(self, coefficients=one, draws=()) for one in self.draws)]
        made: list[Law] = [self]
        for sign in (-1, 1):
            own = dict(self.coefficients)
            for name in ("a", "c"):
                if name in own:
                    own[name] *= 1 + sign * self._slack
            made.append(replace(self, coefficients=own))
        return made

    @property
    def _slack(self) -> float:
        """By how much what N adds may be off, if the whole is off by `error`: about thrice."""
        return 3 * self.error

    def loss(self, point: Point) -> float:
        """The loss that the law foretells."""
        return float(self._losses([point], self.coefficients)[0])

    def interval(self, point: Point, level: float = 0.95) -> tuple[float, float]:
        """Of the mean loss there; the loss itself where there are no draws."""
        if not self.draws:
            loss = self.loss(point)
            return loss * (1 - self.error), loss * (1 + self.error)
        found = [self._losses([point], one)[0] for one in self.draws]
        low, high = np.quantile(found, [0.5 - level / 2, 0.5 + level / 2])
        return float(low), float(high)

    def beyond(self, point: Point) -> list[str]:
        """In which respects the law is asked beyond the points that it was fitted to."""
        values = {"nonzero": point.nonzero, "sparsity": point.sparsity, "examples": point.examples}
        # Ends are as good as inside: a percent is no extrapolation.
        return [
            name for name, (low, high) in self.range.items()
            if not low * 0.99 <= values[name] <= high * 1.01
        ]  # fmt: skip

    def _losses(self, points: Sequence[Point], coefficients: Mapping[str, float]) -> np.ndarray:
        n, s, d = _columns(points, self.form, self.n_unit, self.d_unit)
        return _law(self.form, np.array([coefficients[x] for x in _NAMES[self.form]]), n, s, d)

    def to_json(self) -> dict[str, Any]:
        """Form, coefficients, source and the range that it was fitted in."""
        return {
            "form": FORMS[self.form], "coefficients": dict(self.coefficients),
            "n_unit": self.n_unit, "d_unit": self.d_unit, "counted": self.counted,
            "source": self.source, "fitted_range": {k: list(v) for k, v in self.range.items()},
        }  # fmt: skip


# N in millions of nonzero weights of the encoder, D in thousand millions of images; gradual
# magnitude pruning from dense between 25 and 75 % of training.
VIT_JFT = Law(
    "frantar",
    {"a": 1.30485411, "b": 0.82101251, "c": 2.07506343, "d": 0.39222675, "e": 0.27818217,
     "f": 0.88979104, "g": 4.51669257},
    counted="images",
    source="Frantar, Riquelme, Houlsby, Alistarh, Evci (ICLR 2024, arXiv 2309.08520): ViT on JFT",
    range={"nonzero": (6.6e5, 4.25e7), "sparsity": (0.0, 0.9375), "examples": (2.25e8, 1.8e9)},
    error=0.0075,
)  # fmt: skip
PUBLISHED = {"vit-jft": VIT_JFT}


def fit(
    points: Sequence[Point], form: str = "frantar", *, n_unit: float = 1e6, d_unit: float = 1e9,
    draws: int = 0, seed: int = 0, **facts: Any,
) -> Law:  # fmt: skip
    """The law of a form that comes nearest to the points' losses.

    Minimises the Huber loss of the logarithm's residuals over positive coefficients, from several
    starts, by least squares in their logarithms.

    Args:
        draws: refits on points drawn with replacement, for `Law.interval`.
        facts: further fields of the law.

    Source: the objective is that of Hoffmann et al. (2022), "Training compute-optimal large
    language models", appendix D.2.

    Raises:
        InputError: fewer points than coefficients + 1, all of one size or length, no finite loss.
    """
    if form not in FORMS:
        raise InputError(f"form: value is {form!r}; allowed: {', '.join(FORMS)}")
    names = _NAMES[form]
    if len(points) <= len(names):
        raise InputError(
            f"points: {len(points)} are given; allowed are at least {len(names) + 1}, for the "
            f"{len(names)} coefficients of form {form!r}"
        )
    losses = np.array([point.loss for point in points])
    if not np.isfinite(losses).all() or (losses <= 0).any():
        raise InputError("points: a loss is not finite and above 0; allowed are such losses")
    columns = _columns(points, form, n_unit, d_unit)
    for name, column in (("sizes", columns[0]), ("lengths", columns[2])):
        if np.ptp(column) == 0:
            raise InputError(f"points: all have one of {name}; allowed are at least two")
    rng = np.random.default_rng(seed)
    best = _solve(form, columns, losses, _starts(form, losses, rng))
    low_high = {
        "nonzero": [p.nonzero for p in points], "sparsity": [p.sparsity for p in points],
        "examples": [p.examples for p in points],
    }  # fmt: skip
    found = []
    for _ in range(draws):
        rows = rng.integers(len(points), size=len(points))
        own = tuple(column[rows] for column in columns)
        found.append(dict(zip(names, _solve(form, own, losses[rows], [np.log(best)]), strict=True)))
    law = Law(
        form, dict(zip(names, map(float, best), strict=True)), n_unit, d_unit,
        range={name: (min(v), max(v)) for name, v in low_high.items()}, draws=tuple(found),
        **facts,
    )  # fmt: skip
    return replace(law, error=float(np.abs(errors(law, points)).mean()))


def errors(law: Law, points: Sequence[Point]) -> np.ndarray:
    """Of each point, how far the law is off, as a share of its loss."""
    return np.array([law.loss(p) / p.loss - 1 for p in points])


def held_back(points: Sequence[Point], form: str, *, folds: int = 5, **how: Any) -> np.ndarray:
    """`errors` of each point by a law fitted to the other folds, in the order of the points.

    Every `folds`-th point is of one fold.
    """
    found = np.empty(len(points))
    for fold in range(folds):
        inside = [p for i, p in enumerate(points) if i % folds != fold]
        law = fit(inside, form, **how)
        found[fold::folds] = errors(law, points[fold::folds])
    return found


def _columns(
    points: Sequence[Point], form: str, n_unit: float, d_unit: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    average = form == "average"
    n = [p.nonzero if not average or p.average is None else p.average for p in points]
    return (
        np.array(n) / n_unit, np.array([p.sparsity for p in points]),
        np.array([p.examples for p in points]) / d_unit,
    )  # fmt: skip


def _law(form: str, x: np.ndarray, n: np.ndarray, s: np.ndarray, d: np.ndarray) -> np.ndarray:
    if form == "average":
        a, alpha, e, f, g = x
        return a * n**-alpha + e * d**-f + g
    a, b, c, alpha, e, f, g = x
    return (a * (1 - s) ** b + c) * n**-alpha + e * d**-f + g


def _starts(form: str, losses: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Logarithms of coefficients to start from, spread over what losses allow."""
    spread, least = max(float(np.ptp(losses)), 1e-3), float(losses.min())
    made = []
    for _ in range(_STARTS):
        size, powers = spread * rng.uniform(0.1, 2, 3), rng.uniform(0.1, 1.0, 3)
        floor = least * rng.uniform(0.3, 0.95)
        tail = (size[2], powers[2], floor)
        if form == "average":
            made.append(np.log([size[0], powers[1], *tail]))
        else:
            made.append(np.log([size[0], powers[0], size[1], powers[1], *tail]))
    return made


def _solve(
    form: str, columns: tuple[np.ndarray, ...], losses: np.ndarray, starts: Sequence[np.ndarray]
) -> np.ndarray:
    from scipy.optimize import least_squares

    logs = np.log(losses)

    def residuals(x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            found = np.log(_law(form, np.exp(np.clip(x, -30, 30)), *columns)) - logs
        return np.nan_to_num(found, nan=1e3, posinf=1e3, neginf=-1e3)

    best = min(
        (
            least_squares(residuals, start, loss="huber", f_scale=_HUBER, max_nfev=400)
            for start in starts
        ),
        key=lambda found: found.cost,
    )
    return np.exp(np.clip(best.x, -30, 30))
