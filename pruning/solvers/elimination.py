"""Greedy OBS in many rows at once, from one inverse and the rows eliminated so far.

Removing the group B of columns that costs least, w_B ([H^-1]_BB)^-1 w_B', changes the inverse that
belongs to that row of the layer by -V'V with V = L^-1 [H^-1]_B: and LL' = [H^-1]_BB (Frantar and
Alistarh 2022, lemma 1). Nothing else of an inverse is ever asked for than its diagonal blocks and
the rows of the group that goes, so each row of the layer keeps only the V it has collected, stacked
as U, and forms [H^-1]_B: - U_:B' U when B goes: t d numbers after t steps instead of d^2.

Rows of a layer that share their groups (blocks of several rows) share U too: together they are a
strip. Columns that can't be chosen any more are cut out from time to time.
"""

import torch
from torch import Tensor

PANELS = (16, 64)
"""Fewest and most rows of U that lie in one piece of memory."""

CUT = 0.85
"""Columns are cut out once at most this share of them can still be chosen."""

ROUNDING = 0.05
"""Share by which [H_SS^-1]_jj may fall below 1 / H_jj, its lower bound, by rounding."""


class ImpreciseError(ArithmeticError):
    """Rounding has used up an inverse."""


class Elimination:
    """The paths of `strips` strips of `rows` rows each, one group of `width` columns a step.

    Args:
        inverse: H^-1 of every group of the layer, shape [g, d, d].
        diagonal: Of H, shape [g, d].
        own: Which of them a strip uses, shape [strips].
        weights: Shape [strips, rows, d].
        forced: Column groups that go before all others, shape [strips, d / width].
        width: Columns of a group.
        of_each: Where N:M is asked for, M and how many of each M columns go; `width` is 1 then.
        distances: Whether steps tell |A - W|^2; not for N:M.
    """

    def __init__(
        self,
        inverse: Tensor,
        diagonal: Tensor,
        own: Tensor,
        weights: Tensor,
        forced: Tensor,
        width: int,
        of_each: tuple[int, int] | None = None,
        distances: bool = False,
    ) -> None:
        strips, groups = forced.shape
        self.inverse, self.own, self.width = inverse, own, width
        self.weights, self.aim = weights.clone(), weights.clone()
        self.left = groups
        self.at = torch.arange(groups, device=own.device).expand(strips, groups).contiguous()
        tiles = inverse.unflatten(2, (groups, width)).unflatten(1, (groups, width))
        self.tiles = tiles.diagonal(dim1=1, dim2=3).movedim(-1, 1)[own]
        self.bias = torch.zeros_like(forced, dtype=inverse.dtype).masked_fill(forced, -torch.inf)
        self.panels: list[Tensor] = []
        self.filled = 0
        # |A_q|^2 summed over the removed weights of each strip.
        self.distances, self.parted = distances, weights.new_zeros(strips)
        self.diagonal = diagonal
        self.met: list[tuple[Tensor, Tensor]] = []
        self.failed = torch.zeros(strips, dtype=torch.bool, device=own.device)
        self.of_each = of_each
        if of_each is not None:
            size, count = of_each
            in_group = forced.unflatten(1, (-1, size)).sum(2)
            self.quota = in_group.clamp(min=count)

    def check(self) -> None:
        """See that no inverse lost its digits in the steps since the last check.

        Raises:
            ImpreciseError: If one has.
        """
        groups, pivots = (torch.cat(x, 1) for x in zip(*self.met, strict=True))
        bounds = self.diagonal[self.own[:, None], self._columns(groups)]
        if bool(self.failed.any()) or not bool((pivots * bounds >= 1.0 - ROUNDING).all()):
            raise ImpreciseError
        self.met = []

    def costs(self) -> Tensor:
        """What each column group would cost now, plus its bias, shape [strips, groups left]."""
        if self.width == 1:
            square = self.weights.square().sum(1) if self.rows > 1 else self.weights[:, 0].square()
            return torch.addcdiv(self.bias, square, self.tiles[:, :, 0, 0])
        # Gauss elimination of all tiles at once, their weights as further columns.
        grouped = self.weights.unflatten(2, (self.left, self.width)).permute(0, 2, 3, 1)
        work = torch.cat([self.tiles, grouped], 3)
        cost = self.bias.clone()
        for i in range(self.width):
            row = work[:, :, i, i:]
            pivot = row[..., :1]
            cost += (row[..., self.width - i :].square() / pivot).sum(2)
            if i + 1 < self.width:
                column = row[..., 1 : self.width - i, None] / pivot[..., None]
                work[:, :, i + 1 :, i:] -= column * row[..., None, :]
        return cost

    @property
    def rows(self) -> int:
        """Rows of a strip."""
        return self.weights.shape[1]

    def step(self) -> tuple[Tensor, Tensor, Tensor]:
        """Remove the cheapest column group of each strip, the first of equal ones.

        Every strip must have one left that may go.

        Returns:
            Which group, what it cost, and |A - W|^2 after it if asked for, all of shape [strips].
        """
        chosen = self.costs().min(1, keepdim=True).indices
        group = self.at.gather(1, chosen)
        columns = self._columns(chosen)
        rows = self._rows(group, columns)
        pivot = rows.gather(2, columns[:, None, :].expand(-1, self.width, -1))
        self.met.append((group, pivot.diagonal(dim1=1, dim2=2)))
        picked = columns[:, None, :].expand(-1, self.rows, -1)
        weight = self.weights.gather(2, picked)
        if self.width == 1:
            root = pivot.sqrt()
            rows = rows / root
            moved = weight / root
            self.tiles[:, :, 0, 0] -= rows[:, 0].square()
            self.tiles.scatter_(1, chosen[..., None, None], 1.0)
        else:
            factor, failed = torch.linalg.cholesky_ex(pivot)
            self.failed |= failed != 0
            rows = torch.linalg.solve_triangular(factor, rows, upper=False)
            moved = torch.linalg.solve_triangular(factor, weight.transpose(1, 2), upper=False)
            moved = moved.transpose(1, 2)
            parts = rows.unflatten(2, (self.left, self.width)).permute(0, 2, 3, 1)
            self.tiles -= parts @ parts.transpose(2, 3)
            one = torch.eye(self.width, dtype=rows.dtype, device=rows.device)
            everywhere = torch.arange(len(chosen), device=rows.device)
            self.tiles[everywhere, chosen[:, 0]] = one
        self._store(rows)
        self.weights.baddbmm_(moved, rows, alpha=-1.0)
        self.weights.scatter_(2, picked, 0.0)
        self.bias.scatter_(1, chosen, torch.inf)
        self._close(group)
        return group[:, 0], moved.square().sum((1, 2)), self._distance(picked)

    def _distance(self, picked: Tensor) -> Tensor:
        if not self.distances:
            return self.parted
        self.parted += self.aim.gather(2, picked).square().sum((1, 2))
        self.aim.scatter_(2, picked, 0.0)
        return self.parted + (self.weights - self.aim).square().sum((1, 2))

    def keep(self, strips: Tensor) -> None:
        """Go on with these strips alone: positions among those left, ascending."""
        for name in ("own", "weights", "aim", "at", "tiles", "bias", "parted", "failed"):
            setattr(self, name, getattr(self, name)[strips])
        if self.of_each is not None:
            self.quota = self.quota[strips]
        for i, panel in enumerate(self.panels):
            self.panels[i] = panel[strips]

    def cut(self) -> None:
        """Drop columns that no strip needs, where that is worth the copy."""
        open_ = self.bias < torch.inf
        left = int(open_.sum(1).max())
        if left > CUT * self.left or left == 0:
            return
        groups = (~open_).to(torch.uint8).argsort(dim=1, stable=True)[:, :left]
        columns = self._columns(groups)
        every = columns[:, None, :]
        self.weights = self.weights.gather(2, every.expand(-1, self.rows, -1))
        self.aim = self.aim.gather(2, every.expand(-1, self.rows, -1))
        self.at, self.bias = self.at.gather(1, groups), self.bias.gather(1, groups)
        index = groups[:, :, None, None].expand(-1, -1, self.width, self.width)
        self.tiles = self.tiles.gather(1, index)
        for i, panel in enumerate(self.panels):
            self.panels[i] = panel.gather(2, every.expand(-1, panel.shape[1], -1))
        self.left = left

    def _columns(self, groups: Tensor) -> Tensor:
        """Columns of the column groups [strips, n], shape [strips, n * width]."""
        if self.width == 1:
            return groups
        inside = torch.arange(self.width, device=groups.device)
        return (groups[:, :, None] * self.width + inside).flatten(1)

    def _rows(self, group: Tensor, columns: Tensor) -> Tensor:
        """Rows of the current inverses for the chosen groups, shape [strips, width, columns]."""
        wanted = self._columns(group)
        size = self.inverse.shape[2]
        flat = (self.own[:, None] * size + wanted).flatten()
        rows = self.inverse.flatten(0, 1).index_select(0, flat).unflatten(0, wanted.shape)
        if self.left * self.width < size:
            left = self._columns(self.at)
            rows = rows.gather(2, left[:, None, :].expand(-1, self.width, -1))
        for i, panel in enumerate(self.panels):
            filled = panel[:, : self.filled] if i + 1 == len(self.panels) else panel
            index = columns[:, None, :].expand(-1, filled.shape[1], -1)
            rows.baddbmm_(filled.gather(2, index).transpose(1, 2), filled, alpha=-1.0)
        return rows

    def _store(self, rows: Tensor) -> None:
        if not self.panels or self.filled == self.panels[-1].shape[1]:
            so_far = sum(panel.shape[1] for panel in self.panels)
            size = max(min(max(so_far, PANELS[0]), PANELS[1]) // self.width, 1) * self.width
            self.panels.append(rows.new_empty(len(rows), size, rows.shape[2]))
            self.filled = 0
        self.panels[-1][:, self.filled : self.filled + self.width] = rows
        self.filled += self.width

    def _close(self, group: Tensor) -> None:
        """Close the N:M groups that have lost what they may; forced columns still go."""
        if self.of_each is None:
            return
        size = self.of_each[0]
        hit = torch.div(group, size, rounding_mode="floor")
        left = self.quota.gather(1, hit) - 1
        self.quota.scatter_(1, hit, left)
        full = (torch.div(self.at, size, rounding_mode="floor") == hit) & (left <= 0)
        self.bias.masked_fill_(full & (self.bias == 0), torch.inf)
