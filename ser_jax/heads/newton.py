"""Linear classifiers with an L2 penalty, all classes and a whole path of C at once: Newton's method in few coordinates.

What is minimised over the weights w of each class, with scores w·x, is

    ½ |w|² + C Σ loss(scores of a row),

the objective of liblinear (scikit-learn's LinearSVC) and of scikit-learn's LogisticRegression. Newton's method finds
the optimum of either in a few steps (for the squared hinge: Keerthi and DeCoste 2005; Chapelle 2007). The steps come
from conjugate gradients, each of two matrix products for all classes together. In the coordinates of `rotation` the
Hessian would be diagonal if all rows counted alike, and that diagonal is a good preconditioner. Each C starts from the
optimum of the one before.
"""

import numpy as np

from ser_jax.heads.rotation import rotate

TOLERANCE = 1e-7  # of the gradient, relative to that at zero; liblinear stops at 1e-4 or less
NEWTON_STEPS = 100
CG_STEPS = 500  # in one Newton step
_HALVINGS = 40


class SquaredHinge:
    """costᵢ max(0, 1 − signᵢ scoreᵢ)², in K problems that have nothing to do with each other.

    The intercept is the weight of a constant feature 1, penalised like the others, as in liblinear.
    """

    penalised_intercept = True

    def __init__(self, signs, costs):
        """Args: signs: float64[N, K], ±1; costs: float64[N, K]."""
        self.signs, self.costs, self.classes = signs, costs, signs.shape[1]

    def problems(self, values):
        """Sums per problem from sums per column."""
        return values

    def value(self, scores):
        return np.sum(self.costs * self._margin(scores) ** 2, axis=0)

    def slope(self, scores):
        return -2 * self.costs * self.signs * self._margin(scores)

    def curvature(self, scores):
        """(the Hessian by the scores as a function on float64[N, K], the mean of its diagonal float64[K])."""
        diagonal = np.where(self._margin(scores) > 0, 2 * self.costs, 0)
        return lambda direction: diagonal * direction, diagonal.mean(0)

    def _margin(self, scores):
        return np.maximum(1 - self.signs * scores, 0)


class CrossEntropy:
    """−costᵢ log softmax(scoresᵢ)[labelᵢ], one problem of K columns. The intercepts are not penalised."""

    penalised_intercept = False

    def __init__(self, truth, costs):
        """Args: truth: float64[N, K], one-hot; costs: float64[N]."""
        self.truth, self.costs, self.classes = truth, costs[:, None], truth.shape[1]

    def problems(self, values):
        """Sums per problem from sums per column."""
        return values.sum(keepdims=True)

    def value(self, scores):
        top = scores.max(1, keepdims=True)
        likelihood = scores - top - np.log(np.exp(scores - top).sum(1, keepdims=True))
        return np.sum(-self.costs * self.truth * likelihood, axis=0)

    def slope(self, scores):
        return self.costs * (self._chances(scores) - self.truth)

    def curvature(self, scores):
        """(the Hessian by the scores as a function on float64[N, K], the mean of its diagonal float64[K])."""
        chances = self._chances(scores)

        def product(direction):
            bent = chances * direction
            return self.costs * (bent - chances * bent.sum(1, keepdims=True))

        return product, np.mean(self.costs * chances * (1 - chances), axis=0)

    def _chances(self, scores):
        likelihood = np.exp(scores - scores.max(1, keepdims=True))
        return likelihood / likelihood.sum(1, keepdims=True)


def fit_path(x, loss, path):
    """Fits a linear classifier for each C of a path.

    Args:
      x: float64[N, D], scaled features.
      loss: a `SquaredHinge` or `CrossEntropy` over the N rows and K classes.
      path: the values of C; rising ones are the fastest.

    Returns:
      a list, one for each C, of (coef float64[K, D], intercept float64[K], converged bool).
    """
    one = np.ones((len(x), 1))
    if loss.penalised_intercept:
        rotated = rotate(np.concatenate([x, one], axis=1))
        z, power, penalised = rotated.z, rotated.power, np.ones(len(rotated.power))
    else:
        rotated = rotate(x)
        z, power = np.concatenate([rotated.z, one], axis=1), np.append(rotated.power, len(x))
        penalised = np.append(np.ones(len(rotated.power)), 0)
    weights, found = np.zeros((len(power), loss.classes)), []
    for c in path:
        weights, converged = _newton(z, power, penalised / c, loss, weights)
        if loss.penalised_intercept:
            full = rotated.back(weights)
            found.append((full[:-1].T, full[-1], converged))
        else:
            # What all intercepts share changes no probability; scikit-learn's have a sum of 0.
            found.append((rotated.back(weights[:-1]).T, weights[-1] - weights[-1].mean(), converged))
    return found


def _newton(z, power, penalty, loss, weights):
    """(weights float64[R, K], converged) from a start."""

    def dot(a, b):
        return loss.problems(np.sum(a * b, axis=0))

    scores, penalty = z @ weights, penalty[:, None]
    start = z.T @ loss.slope(np.zeros_like(scores))
    at_zero = np.maximum(np.sqrt(dot(start, start)), np.finfo(np.float64).tiny)
    for _ in range(NEWTON_STEPS):
        gradient = penalty * weights + z.T @ loss.slope(scores)
        size = np.sqrt(dot(gradient, gradient))
        if (size <= TOLERANCE * at_zero).all():
            return weights, True
        product, mean = loss.curvature(scores)
        step = _conjugate_gradients(
            lambda d, product=product: penalty * d + z.T @ product(z @ d),
            1 / (penalty + power[:, None] * mean),
            -gradient,
            # The more exact the nearer the optimum, so that the last steps converge superlinearly.
            size * np.minimum(0.1, np.sqrt(size / at_zero)),
            dot,
        )
        moved = z @ step

        def objective(length, weights=weights, scores=scores, step=step, moved=moved):
            trial = weights + length * step
            return 0.5 * dot(penalty * trial, trial) + loss.problems(loss.value(scores + length * moved))

        length = _step_length(objective, dot(gradient, step))
        weights, scores = weights + length * step, scores + length * moved
    return weights, False


def _conjugate_gradients(hessian, inverse, residual, goal, dot):
    """Solves hessian(step) = residual to norms below `goal`; `inverse` is a diagonal preconditioner."""
    step, direction = np.zeros_like(residual), inverse * residual
    before = dot(residual, direction)
    for _ in range(CG_STEPS):
        image = hessian(direction)
        bent = dot(direction, image)
        rate = np.divide(before, bent, out=np.zeros_like(bent), where=bent > 0)
        step += rate * direction
        residual = residual - rate * image
        if (dot(residual, residual) <= goal**2).all():
            break
        conditioned = inverse * residual
        now = dot(residual, conditioned)
        direction = conditioned + np.divide(now, before, out=np.zeros_like(now), where=before > 0) * direction
        before = now
    return step


def _step_length(objective, slope):
    """The greatest of 1, ½, ¼… of the step that lowers each objective enough (Armijo)."""
    length, start = np.ones_like(slope), objective(0.0)
    for _ in range(_HALVINGS):
        short = objective(length) > start + 1e-4 * length * slope + 1e-13 * start
        if not short.any():
            break
        length = np.where(short, length / 2, length)
    return length
