"""Linear heads from scikit-learn: the ComParE 2020 support vector machine, and linear probes with nested choice of C.

Scaling, upsampling and the choice of C see the training side of a fold only. Ties go to the smallest C (most
regularised).
"""

import warnings

import numpy as np

from ser_jax.errors import UserError
from ser_jax.heads.linear import LinearModel
from ser_jax.metrics import uar
from ser_jax.protocols.folds import assign_groups

INNER_FOLDS = 5


class CompareHead:
    """The head of the ComParE 2020 baseline (Schuller et al. 2020; as the scripts of its elderly emotion task).

    Classes are upsampled by the integer factor ⌊largest / size⌋, features scaled to [0, 1] on the upsampled training
    part; linear SVM (squared hinge, L2, one against the rest, seed 0, 10 000 iterations), C ∈ 1e-5…1 chosen by the UAR
    of the dev part over chunks, before any vote; upsampling, scaler and SVM are then made anew on train + dev.

    Differences from the scripts: they leave the choice among equal C open (here: the smallest) and stop the final fit
    after 1000 iterations (here: 10 000). The solver is the dual one, as theirs, where there are fewer rows than
    features, as in their data, and otherwise the primal one: the same optimum, found much faster.
    """

    name = "compare"
    needs_dev = True
    grid = tuple(10.0**e for e in range(-5, 1))
    selection = "C in 1e-5..1 by UAR of the dev part over chunks (tie: smallest C), refit on train+dev"

    def fit(self, x, y, groups, dev):
        """See `Head.fit`; `groups` is not used."""
        y, dev = np.asarray(y, dtype=object), np.asarray(dev, bool)
        if not dev.any():
            raise UserError("--head compare needs a dev part to choose C; add one to the protocol or use --head linear")
        found, unconverged = {}, 0
        for c in self.grid:
            model = self._fit(x[~dev], y[~dev], c)
            unconverged += model.unconverged
            # A class absent from dev counts the same for every C, so leaving it out does not change the choice.
            found[c] = uar(y[dev], model.predict(x[dev]), sorted(set(y)), absent="skip")
        chosen = max(self.grid, key=lambda c: (found[c], -c))
        model = self._fit(x, y, chosen)
        model.unconverged += unconverged
        model.chosen = {"C": chosen, "dev_UAR": {f"{c:g}": value for c, value in found.items()}}
        return model

    def _fit(self, x, y, c):
        from sklearn.preprocessing import MinMaxScaler
        from sklearn.svm import LinearSVC

        rows = upsample(y)
        scaler = MinMaxScaler().fit(x[rows].astype(np.float64))
        svm = LinearSVC(C=c, random_state=0, max_iter=10_000, dual="auto")
        return _fit_quietly(svm, x[rows], y[rows], scaler.data_min_, scaler.scale_)


class LinearHead:
    """Linear SVM on standardised features, classes weighted, C chosen by inner folds of whole training speakers.

    Train and dev are one. The UAR that chooses C is that of the pooled inner predictions, over chunks. With one
    training speaker the inner folds are over rows, which is said in `chosen`.
    """

    name = "linear"
    needs_dev = False
    grid = tuple(10.0**e for e in range(-6, 0))
    selection = (
        "C in 1e-6..0.1 by UAR over chunks of inner folds of whole training speakers (tie: smallest C), "
        "refit on train+dev"
    )

    def fit(self, x, y, groups, dev):
        """See `Head.fit`; `dev` is not used."""
        y, groups = np.asarray(y, dtype=object), np.asarray(groups, dtype=object)
        inner = "speakers"
        if len(set(groups)) < 2:
            groups, inner = np.arange(len(y)).astype(str), "rows (one training speaker)"
        folds = min(INNER_FOLDS, len(set(groups)))
        part = assign_groups(groups, y, folds, "inner")
        found, unconverged = {}, 0
        for c in self.grid:
            prediction = np.empty_like(y)
            for fold in range(folds):
                held = part == fold
                if len(set(y[~held])) < 2:
                    prediction[held] = y[~held][0]
                    continue
                model = self._fit(x[~held], y[~held], c)
                unconverged += model.unconverged
                prediction[held] = model.predict(x[held])
            found[c] = uar(y, prediction, sorted(set(y)))
        chosen = max(self.grid, key=lambda c: (found[c], -c))
        model = self._fit(x, y, chosen)
        model.unconverged += unconverged
        model.chosen = {"C": chosen, "inner": inner, "inner_UAR": {f"{c:g}": value for c, value in found.items()}}
        return model

    def estimator(self, c):
        from sklearn.svm import LinearSVC

        return LinearSVC(C=c, class_weight="balanced", random_state=0, max_iter=5000, dual="auto")

    def _fit(self, x, y, c):
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(x.astype(np.float64))
        return _fit_quietly(self.estimator(c), x, y, scaler.mean_, 1 / scaler.scale_)


class LogisticHead(LinearHead):
    """As `LinearHead`, with multinomial logistic regression (class-weighted, L2)."""

    name = "logistic"

    def estimator(self, c):
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=c, class_weight="balanced", max_iter=2000)


def upsample(y):
    """Rows int64[M] in which every class is repeated ⌊largest / size⌋ times, in the order of `y`, copies at the end."""
    _, member, counts = np.unique(np.asarray(y, dtype=str), return_inverse=True, return_counts=True)
    factor = (counts.max() // counts)[member.reshape(-1)]
    return np.concatenate([np.flatnonzero(factor > copy) for copy in range(factor.max())])


def _fit_quietly(estimator, x, y, shift, scale):
    """Fits on the scaled rows; counts a stop at the limit of iterations instead of warning each time."""
    from sklearn.exceptions import ConvergenceWarning

    if len(set(y)) < 2:
        raise UserError(
            f"the training part of a fold has one class only ({y[0]!r}); choose another --protocol or --classes"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit((x.astype(np.float64) - shift) * scale, y.astype(str))
    coef, intercept = estimator.coef_, estimator.intercept_
    if len(coef) == 1:
        coef, intercept = np.concatenate([-coef, coef]), np.concatenate([-intercept, intercept])
    stopped = int(np.max(estimator.n_iter_) >= estimator.max_iter)
    return LinearModel(
        np.asarray(shift), np.asarray(scale), coef, intercept, estimator.classes_.tolist(), unconverged=stopped
    )
