"""`asr-kd sweep`: the same recipe at every point of a grid of settings, one table and one figure, chosen on dev.

A point works in a folder of its own, exp/sweep/<name>/points/<point>/, in which whatever its settings leave as it is
(data, alignment, tree, and where they fit graph, teachers and soft targets) is a link to the recipe's. Each artefact
has its stamp there, so a sweep that was killed goes on, and one with a longer grid makes only what is new.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from asr_kd.acoustic.training import read_log
from asr_kd.decoding.graph import make_graph
from asr_kd.errors import UserError
from asr_kd.io.files import digest_of
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp, read_stamp
from asr_kd.stages.decode import decode
from asr_kd.stages.decode_results import read_summary
from asr_kd.stages.soft_targets import distill, make_soft_targets
from asr_kd.stages.train import train_direct, train_ensemble
from asr_kd.workspace.config import Config, takes_members, to_mapping, with_settings
from asr_kd.workspace.executor import parallel_map
from asr_kd.workspace.run_options import RunOptions
from asr_kd.workspace.work import Workspace, require

ROOMS = ("teacher", "soft_targets", "student", "small", "decoding")  # what a sweep may change
SYSTEMS = ("direct", "distilled", "direct-small", "distilled-small", "ensemble")
_SHARED = ("tree", "tree_monophone", "align")
_DISTILLED = ("distilled", "distilled-small")

log = logging.getLogger(__name__)

Grid = dict[str, list[Any]]


@dataclass(frozen=True)
class Point:
    """One combination of the grid's values."""

    values: Mapping[str, Any]
    config: Config

    @property
    def name(self) -> str:
        """Also its folder's: no slash is in it."""
        return ",".join(f"{key}={value}" for key, value in self.values.items()).replace("/", "_")


@dataclass(frozen=True)
class _Piece:
    """What a process needs to run one point."""

    point: Point
    root: Path
    config_path: Path
    systems: tuple[str, ...]
    sets: tuple[str, ...]
    backend: str
    options: RunOptions


@dataclass(frozen=True)
class SweepResult:
    """One row per point and system: the grid's values, "system", and what was measured."""

    folder: Path
    keys: tuple[str, ...]
    rows: list[dict[str, Any]]

    def best(self) -> dict[str, Any]:
        """The row with the highest frame accuracy on dev."""
        return max(self.rows, key=lambda row: float(row["frame_accuracy"]))

    def __str__(self) -> str:
        best = self.best()
        chosen = ", ".join(f"{key} {best[key]}" for key in self.keys)
        return f"{markdown(self)}\nbest on dev: {best['system']} with {chosen}\n{self.folder}/report/sweep.md"


def parse_grid(entries: Sequence[str], where: str = "--grid") -> Grid:
    """ "KEY=V1,V2" -> {KEY: [V1, V2]}; values are read as YAML reads them, 1e-3 as a number.

    Raises:
      UserError: an entry without '=' or values, or a key that is there twice or that a sweep cannot change.
    """
    grid: Grid = {}
    for entry in entries:
        key, equals, text = entry.partition("=")
        values = [_value(one) for one in text.split(",") if one.strip()]
        if not equals or not values:
            raise UserError(f"{where}: expected KEY=VALUE,VALUE,..., found {entry!r}.")
        if key in grid:
            raise UserError(f"{where}: {key} is there twice; give all its values at once.")
        if key.partition(".")[0] not in ROOMS:
            raise UserError(f"{where}: {key} cannot be swept; keys begin with {', '.join(ROOMS)}.")
        grid[key] = values
    return grid


def _value(text: str) -> Any:
    try:
        return int(text) if text.strip().lstrip("+-").isdigit() else float(text)
    except ValueError:
        return yaml.safe_load(text)


def points_of(config: Config, grid: Grid) -> list[Point]:
    """Every combination, the last key's values changing fastest; each is checked before any is run."""
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [Point(values, with_settings(config, values, "--grid")) for values in combinations]


def sweep(
    config: Config,
    work: Workspace,
    grid: Grid,
    options: RunOptions,
    *,
    name: str | None = None,
    systems: Sequence[str] = ("distilled",),
    sets: Sequence[str] = (),
    backend: str = "k2",
    nj: int = 1,
) -> SweepResult:
    """Trains, and with `sets` decodes, the systems at every point.

    Args:
      name: of the folder in exp/sweep; None: made from the keys.
      systems: of SYSTEMS.
      sets: "dev", or "dev" and "test"; scales always come from dev.
      nj: points that run at once.

    Raises:
      UserError: no grid, an unknown system or key, or a stage before has not run.
    """
    if not grid:
        raise UserError("a sweep needs a grid: add --grid KEY=VALUE,VALUE,...")
    for system in systems:
        if system not in SYSTEMS:
            raise UserError(f"there is no system {system!r} to sweep; known: {', '.join(SYSTEMS)}.")
    points = points_of(config, grid)
    require(work.exp("align"), work, "align")
    folder = work.exp("sweep") / (name or "-".join(key.rpartition(".")[2] for key in grid))
    roots = [_make_folder(config, work, folder, point) for point in points]
    pieces = [
        _Piece(point, root, work.config_path, tuple(systems), tuple(sets), backend, options)
        for point, root in zip(points, roots, strict=True)
    ]
    for piece in pieces:  # one after the other: several points share these
        if sets:
            make_graph(piece.point.config, _Linked(piece.root, piece.config_path))
        if _needs_teachers(piece):
            _teach(piece)
    found = list(parallel_map(_run_point, pieces, nj=nj, progress="points"))
    result = SweepResult(folder, tuple(grid), [row for rows in found for row in rows])
    _write(result, grid, systems)
    return result


def _make_folder(config: Config, work: Workspace, folder: Path, point: Point) -> Path:
    """The point's work folder with its links."""
    root = folder / "points" / point.name
    (root / "exp").mkdir(parents=True, exist_ok=True)
    _link(root / "data", work.data)
    for artefact in _SHARED:
        _link(root / "exp" / artefact, work.exp(artefact))
    for artefact, parts in _parts(point.config).items():
        # the recipe's own where the settings are the recipe's, else one for all points that have these settings
        own = parts == _parts(config)[artefact]
        target = work.exp(artefact) if own else folder / "shared" / f"{artefact}-{digest_of(parts)[:12]}"
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(root / "exp" / artefact, target)
    return root


def _parts(config: Config) -> dict[str, Any]:
    """What the artefacts that points may share depend on."""
    teacher, targets = to_mapping(config.teacher), to_mapping(config.soft_targets)
    return {
        "graph": config.decoding.silence_probability,
        "teacher": teacher,
        "teacher_folds": [teacher, targets["out_of_fold"]],
        "soft_targets": [teacher, targets],
    }


def _link(link: Path, target: Path) -> None:
    there = os.path.relpath(target.absolute(), link.parent.absolute())
    if link.is_symlink():
        if os.readlink(link) == there:
            return
        link.unlink()
    link.symlink_to(there)


def _needs_teachers(piece: _Piece) -> bool:
    """Whether a system learns from them; or is taken from them, where there are none yet."""
    if any(system in (*_DISTILLED, "ensemble") for system in piece.systems):
        return True
    config = piece.point.config
    pairs = [config.small if system.endswith("-small") else config.student for system in piece.systems]
    taken = any(pair is not None and takes_members(pair, config.teacher) for pair in pairs)
    return taken and read_stamp(_Linked(piece.root, piece.config_path).exp("teacher")) is None


def _teach(piece: _Piece) -> None:
    """Teachers and soft targets, made where the links lead."""
    options = piece.options
    config, work = piece.point.config, _Linked(piece.root, piece.config_path)
    train_ensemble(config, work, options)
    if any(system in _DISTILLED for system in piece.systems):
        make_soft_targets(config, work, options)


class _Linked(Workspace):
    """A work folder whose artefacts may be links: what is replaced is what they lead to, not the link."""

    def exp(self, name: str) -> Path:
        path = super().exp(name)
        return path.resolve() if path.is_symlink() else path


def _run_point(piece: _Piece) -> list[dict[str, Any]]:
    config, work, options = piece.point.config, _Linked(piece.root, piece.config_path), piece.options
    rows = []
    for system in piece.systems:
        pair = "small" if system.endswith("-small") else "student"
        if system in _DISTILLED:
            trained = distill(config, work, options, pair)
        elif system == "ensemble":
            trained = train_ensemble(config, work, options)[0]
        else:
            trained = train_direct(config, work, options, pair)
        epochs = read_log(trained.folder)
        entropies = [epochs[epoch - 1]["dev_cross_entropy"][m] for m, epoch in enumerate(trained.best_epoch)]
        row = {
            **piece.point.values,
            "system": system,
            "parameters": trained.parameters * (trained.members if system == "ensemble" else 1),
            "seeds": trained.members,
            "frame_accuracy": _mean(trained.dev_accuracy),
            "frame_accuracy_each": trained.dev_accuracy,
            "cross_entropy": _mean(entropies),
        }
        if piece.sets:
            decode(config, work, [system], piece.sets, piece.backend)
            summaries = {name: read_summary(work, system, name) for name in piece.sets}
            row["wer"] = {name: summary["wer"] for name, summary in summaries.items()}
            row["wer_per_seed"] = {name: summary["wer_per_seed"] for name, summary in summaries.items()}
            row["unit"] = summaries[piece.sets[-1]].get("unit", "word")
            row["rtf"] = summaries[piece.sets[-1]]["rtf"]
        rows.append(row)
    return rows


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def markdown(result: SweepResult) -> str:
    """The table; accuracies and cross-entropy are dev's. Of an ensemble they are its members' mean."""
    sets = list(result.rows[0].get("wer", {}))
    head = [*result.keys, "system", "parameters", "dev frame accuracy", "dev cross-entropy"]
    rate = "PER" if result.rows[0].get("unit") == "phone" else "WER"
    head += [f"{rate} {name}" for name in sets] + (["RTF"] if sets else [])
    lines = [head, ["---"] * len(head)]
    for row in result.rows:
        cells = [*(str(row[key]) for key in result.keys), row["system"], f"{row['parameters']:,}"]
        cells += [f"{row['frame_accuracy']:.2%}", f"{row['cross_entropy']:.3f}"]
        cells += [f"{row['wer'][name]:.2%}" for name in sets] + ([f"{row['rtf']:.3f}"] if sets else [])
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _write(result: SweepResult, grid: Grid, systems: Sequence[str]) -> None:
    from asr_kd.report.sweep_figure import draw  # here: matplotlib is not needed by the processes

    stamp = Stamp("sweep", {"grid": grid, "systems": list(systems)}, {"rows": digest_of(result.rows)})
    with replacing_folder(result.folder / "report", stamp) as temporary:
        (temporary / "sweep.json").write_text(json.dumps(result.rows, indent=1) + "\n", encoding="utf-8")
        (temporary / "sweep.svg").write_text(draw(result.rows, list(grid)), encoding="utf-8")
        (temporary / "sweep.md").write_text(f"{markdown(result)}\n\n![The sweep](sweep.svg)\n", encoding="utf-8")
