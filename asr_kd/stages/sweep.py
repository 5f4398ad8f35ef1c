"""`asr-kd sweep`: the same recipe at every point of a grid of settings, one table and one figure, chosen on dev.

A point works in a folder of its own, exp/sweep/<name>/points/<point>/. Artefacts that its settings do
not affect (data, alignment, trees, often graphs, teachers and soft targets) are links to the recipe's; those that
several points have in common are in exp/sweep/<name>/shared/. Each artefact has its stamp, so a killed sweep resumes,
and a sweep with a longer grid computes only what is new.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from asr_kd.acoustic.divergence import DivergedError
from asr_kd.acoustic.training import read_log
from asr_kd.decoding.settings import chosen_backend
from asr_kd.errors import UserError, some_of
from asr_kd.evaluation.scoring import rate_name
from asr_kd.io.files import digest_of, write_json
from asr_kd.io.folders import replacing_folder
from asr_kd.io.formatting import markdown_table
from asr_kd.io.stamp import Stamp, read_stamp
from asr_kd.io.yaml_files import parse_yaml
from asr_kd.report.hypotheses import read_hypotheses
from asr_kd.report.style import as_image
from asr_kd.report.systems import role_of
from asr_kd.settings import to_mapping
from asr_kd.stages.decode import decode
from asr_kd.stages.decode_context import chosen_sets
from asr_kd.stages.decoding_graph import make_graph
from asr_kd.stages.phone_graph import make_phone_graph
from asr_kd.stages.soft_targets import make_soft_targets
from asr_kd.stages.train import net_threads, places_for, threads_each, train
from asr_kd.stages.training_set import seeds_of
from asr_kd.workspace.config import DEV, NAME, Config, why_not_reused
from asr_kd.workspace.config_files import with_settings
from asr_kd.workspace.executor import RunOptions, parallel_map
from asr_kd.workspace.work import Workspace, require

if TYPE_CHECKING:
    from asr_kd.report.sweep_figure import SweepRow  # with matplotlib, which the processes do not need

_SWEPT = ("systems", "decoding")  # the sections of the config that a sweep may change

log = logging.getLogger(__name__)

Grid = dict[str, list[Any]]


@dataclass(frozen=True)
class Point:
    """One combination of the grid's values."""

    values: Mapping[str, Any]
    config: Config
    not_reused: tuple[str, ...] = ()  # systems trained here because the one that they reuse has other settings

    @property
    def name(self) -> str:
        """Also its folder's: no slash is in it."""
        return ",".join(f"{key}={value}" for key, value in self.values.items()).replace("/", "_")


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep runs at every point.

    Attributes:
      systems: of the config.
      sets: to decode; scales always come from dev.
      backend: of decoding; None: the first that is installed.
    """

    grid: Grid
    systems: tuple[str, ...]
    sets: tuple[str, ...] = ()
    backend: str | None = None


@dataclass(frozen=True)
class SweepResult:
    """One row per point and system; `diverged` names those that have none."""

    folder: Path
    keys: tuple[str, ...]
    rows: list[SweepRow]
    diverged: list[str]

    @property
    def left_out(self) -> str:
        """A paragraph on what diverged; "" where nothing did."""
        return f"\nTraining diverged: {', '.join(self.diverged)}.\n" if self.diverged else ""

    def __str__(self) -> str:
        best = min(self.rows, key=lambda row: row.wer.get(DEV, -row.frame_accuracy))
        chosen = ", ".join(f"{key} {best.values[key]}" for key in self.keys)
        return (
            f"{markdown(self)}\n{self.left_out}best on dev: {best.system} with {chosen}\n{self.folder}/report/sweep.md"
        )


def parse_grid(entries: Sequence[str]) -> Grid:
    """ "KEY=V1,V2" -> {KEY: [V1, V2]}; values are read as in a config.

    Raises:
      UserError: an entry without '=' or values, or a key that appears twice or that a sweep cannot change.
    """
    grid: Grid = {}
    for entry in entries:
        key, equals, text = entry.partition("=")
        values = [parse_yaml(value, f"--grid {key}") for value in text.split(",") if value.strip()]
        if not equals or not values:
            raise UserError(f"--grid: expected KEY=VALUE,VALUE,..., found {entry!r}.")
        if twice := [value for number, value in enumerate(values) if value in values[:number]]:
            raise UserError(f"--grid: {key} has the value {twice[0]} twice; leave one out.")
        if key in grid:
            raise UserError(f"--grid: {key} appears twice; give all its values at once.")
        if key.partition(".")[0] not in _SWEPT:
            raise UserError(f"--grid: {key} cannot be swept; keys begin with {' or '.join(_SWEPT)}.")
        grid[key] = values
    return grid


def points_of(config: Config, grid: Grid) -> list[Point]:
    """Every combination, the last key's values changing fastest; each is checked before any is run."""
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [_point(config, values) for values in combinations]


def _point(config: Config, values: dict[str, Any]) -> Point:
    """Returns the grid point of these values; drops `reuse` where they make a system differ from the one it reuses."""
    reusing = {name: system.reuse for name, system in config.systems.items() if system.reuse}
    apart = with_settings(config, values | {f"systems.{name}.reuse": "" for name in reusing}, "--grid")
    unlike = [
        name
        for name, source in reusing.items()
        if why_not_reused(apart.systems[name], apart.systems[source]) is not None
    ]
    dropped = {f"systems.{name}.reuse": "" for name in unlike}
    return Point(values, with_settings(config, values | dropped, "--grid"), tuple(unlike))


def default_systems(config: Config) -> tuple[str, ...]:
    """The distilled systems of the comparisons; without a comparison, all systems."""
    return tuple(dict.fromkeys(comparison.distilled for comparison in config.compare)) or tuple(config.systems)


def sweep(
    config: Config, work: Workspace, plan: SweepPlan, options: RunOptions, name: str | None = None, nj: int = 1
) -> SweepResult:
    """Trains, and with `plan.sets` decodes, the systems at every point.

    Args:
      name: of the folder in exp/sweep; None: made from the keys.
      nj: points that run at once; on a GPU of this machine there is one. The result does not depend on it, but for
        real-time factors.

    Raises:
      UserError: no grid, an unknown system or key, or a stage before has not run.
    """
    if not plan.grid:
        raise UserError("a sweep needs a grid: add --grid KEY=VALUE,VALUE,...")
    for system in plan.systems:
        config.system(system)
    if plan.sets:  # what is wrong with them is said before anything is trained
        chosen_sets(config, work, plan.sets)
        chosen_backend(plan.backend)
    if name is not None and not NAME.fullmatch(name):
        raise UserError(f"--name {name}: this cannot name a sweep: use letters, digits, '.', '_' and '-'.")
    points = points_of(config, plan.grid)
    for point in points:
        for system in point.not_reused:
            log.info("%s: %s reuses no models, its settings are not those of %s", point.name, system,
                     config.systems[system].reuse)  # fmt: skip
    require(work.exp("align"), work, "align")
    folder = work.exp("sweep") / (name or "-".join(key.rpartition(".")[2] for key in plan.grid))
    made = read_stamp(folder / "report")
    if made is not None and made["settings"]["grid"].keys() != plan.grid.keys():
        other = ", ".join(made["settings"]["grid"])
        raise UserError(f"{folder} has the results of another sweep, over {other}; give this one a name: --name NAME.")
    linked = [(point, _linked_folder(config, work, folder, point)) for point in points]
    for point, of_point in linked:  # one after the other: several points share these
        _make_shared(point.config, of_point, plan, options, nj)
    at_once = min(places_for(options, nj), len(linked))
    run_point = partial(_run_point, plan, replace(options, quiet=options.quiet or at_once > 1), threads_each(at_once))
    results = list(parallel_map(run_point, linked, nj=at_once, progress="points"))
    rows = [row for of_point in results for row in of_point]
    diverged = [
        f"{system} at {point.name}"
        for point, of_point in zip(points, results, strict=True)
        for system in plan.systems
        if system not in {row.system for row in of_point}
    ]
    if not rows:
        raise UserError(f"training diverged at every point ({some_of(diverged)}); take lower learning rates.")
    result = SweepResult(folder, tuple(plan.grid), rows, diverged)
    _write(result, plan)
    return result


def _linked_folder(config: Config, work: Workspace, folder: Path, point: Point) -> Workspace:
    """The point's work folder, with a link for each artefact that is not its own."""
    root = folder / "points" / point.name
    linked = _Linked(root, work.config_path)
    (root / "exp" / "targets").mkdir(parents=True, exist_ok=True)
    _link(root / "data", work.data)
    for path in (work.exp("align"), *(work.tree(kind) for kind in config.trees)):
        _link(root / "exp" / path.name, path)
    recipes = dict(_shared_parts(config))
    for artefact, digest in _shared_parts(point.config):
        own = recipes.get(artefact) == digest
        shared = folder / "shared" / f"{artefact.replace('/', '-')}-{digest[:12]}"
        target = work.exp(artefact) if own else shared
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(root / "exp" / artefact, target)
    return linked


def _shared_parts(config: Config) -> Iterator[tuple[str, str]]:
    """What points may share: its folder in exp/, and a digest of all settings that it depends on.

    Those are the graphs, the systems that others learn from, and their soft targets.
    """
    for kind in config.trees:
        suffix = "" if kind == "tied" else f"_{kind}"
        yield f"graph{suffix}", digest_of(config.decoding.silence_probability)
        yield f"phone_graph{suffix}", ""
    yield "phone_lm", ""
    sources = dict.fromkeys(teacher for system in config.systems.values() for teacher in system.teachers)
    for name in sources:
        yield name, _digest(config, name)
    for system in config.systems.values():
        if (targets := system.stored_targets) is not None:
            teachers = [] if targets.imported else [_digest(config, name) for name in targets.source]
            yield f"targets/{targets.name}", digest_of([to_mapping(targets.stored, changed_only=True), teachers])


def _digest(config: Config, name: str) -> str:
    """Returns the digest of a system's settings, those that its stamp has, and of all systems that it learns from."""
    system = config.systems[name]
    settings = to_mapping(system, changed_only=True)
    return str(digest_of([settings, seeds_of(config, name), [_digest(config, teacher) for teacher in system.teachers]]))


def _link(link: Path, target: Path) -> None:
    destination = os.path.relpath(target.absolute(), link.parent.absolute())
    if link.is_symlink():
        if os.readlink(link) == destination:
            return
        link.unlink()
    elif link.exists():
        raise UserError(f"{link} must be a link to {target}, but a folder of this name is there; move it away.")
    link.symlink_to(destination)


class _Linked(Workspace):
    """A work folder whose artefacts may be links: what is replaced is their target, not the link."""

    def exp(self, name: str) -> Path:
        return _resolved(super().exp(name))

    def targets(self, name: str) -> Path:
        return _resolved(super().targets(name))


def _resolved(path: Path) -> Path:
    return path.resolve() if path.is_symlink() else path


def _make_shared(config: Config, work: Workspace, plan: SweepPlan, options: RunOptions, nj: int) -> None:
    """The graphs, teachers and soft targets that a point's systems need, where the links lead."""
    if plan.sets:
        for tree in dict.fromkeys(config.systems[name].tree for name in plan.systems):
            make_graph(config, work, tree)
            if config.decodes_phones:
                make_phone_graph(work, tree)
    sources = {teacher for system in config.systems.values() for teacher in system.teachers}
    needed = _needed(config, plan.systems)
    teachers = [name for name in config.in_training_order() if name in needed and name in sources]
    if teachers:
        train(config, work, options, teachers, nj)
    learners = [name for name in plan.systems if config.systems[name].stored_targets is not None]
    if learners:
        make_soft_targets(config, work, options, learners, nj)


def _needed(config: Config, names: Sequence[str]) -> set[str]:
    """The systems and all that they learn from."""
    needed = set(names)
    for name in names:
        needed |= _needed(config, config.systems[name].teachers)
    return needed


def _run_point(plan: SweepPlan, options: RunOptions, threads: int, linked: tuple[Point, Workspace]) -> list[SweepRow]:
    from asr_kd.report.sweep_figure import SweepRow

    point, work = linked
    config = point.config
    rows = []
    for name in plan.systems:
        try:
            with net_threads(threads):
                train(config, work, options, [name], nj=1)
        except DivergedError as error:  # the other points say more than none
            log.warning("left out: %s", error)
            continue
        metadata = require(work.exp(name), work, f"train {name}")["metadata"]
        rows.append(
            SweepRow(
                values=dict(point.values),
                system=name,
                role=role_of(config, name),
                parameters=round(metadata["parameters"] * sum(config.answering(name).values())),
                seeds=len(metadata["dev_accuracy"]),
                frame_accuracy=fmean(metadata["dev_accuracy"]),
                frame_accuracy_each=metadata["dev_accuracy"],
                cross_entropy=fmean(_dev_cross_entropies(config, work, name)),
                **(_decoded(config, work, plan, name) if plan.sets else {}),
            )
        )
    return rows


def _dev_cross_entropies(config: Config, work: Workspace, name: str) -> list[float]:
    """Returns the cross-entropy on dev of each of a system's models at its best epoch."""
    if parts := config.systems[name].parts:
        return [value for part in parts for value in _dev_cross_entropies(config, work, part)]
    best_epochs = require(work.exp(name), work, f"train {name}")["metadata"]["best_epoch"]
    epochs = read_log(work.exp(name))
    return [epochs[epoch - 1]["dev_cross_entropy"][m] for m, epoch in enumerate(best_epochs)]


def _decoded(config: Config, work: Workspace, plan: SweepPlan, name: str) -> dict[str, Any]:
    """Decodes a system; the fields of `SweepRow` that come from its words."""
    decode(config, work, [name], plan.sets, plan.backend)
    hypotheses = {s: read_hypotheses(work.decoded(name, s), "asr-kd sweep as before") for s in plan.sets}
    summary = hypotheses[plan.sets[-1]].summary
    phones = {
        s: read_hypotheses(work.decoded_phones(name, s), "asr-kd sweep as before")
        for s in (plan.sets if config.decodes_phones else ())
    }
    return {
        "unit": summary.unit,
        "wer": {s: h.total.wer for s, h in hypotheses.items()},
        "wer_per_seed": {s: [errors.wer for errors in h.per_seed] for s, h in hypotheses.items()},
        "cer": {} if summary.characters is None else {s: h.in_characters().total.wer for s, h in hypotheses.items()},
        "per": {s: h.total.wer for s, h in phones.items()},
        "per_per_seed": {s: [errors.wer for errors in h.per_seed] for s, h in phones.items()},
        "rtf": summary.rtf,
    }


def markdown(result: SweepResult) -> str:
    """The table; accuracies and cross-entropy are dev's, of an ensemble its members' mean."""
    first = result.rows[0]
    rate = rate_name(first.unit)
    head = [*result.keys, "system", "parameters", "dev frame accuracy", "dev cross-entropy"]
    head += [f"{rate} {name}" for name in first.wer] + [f"CER {name}" for name in first.cer]
    head += [f"PER {name}" for name in first.per]
    head += ["RTF"] if first.wer else []
    rows = []
    for row in result.rows:
        cells = [*(str(row.values[key]) for key in result.keys), row.system, f"{row.parameters:,}"]
        cells += [f"{row.frame_accuracy:.2%}", f"{row.cross_entropy:.3f}"]
        cells += [f"{rate:.2%}" for rate in (*row.wer.values(), *row.cer.values(), *row.per.values())]
        cells += [f"{row.rtf:.3f}"] if row.wer else []
        rows.append(cells)
    return markdown_table(head, rows)


def _write(result: SweepResult, plan: SweepPlan) -> None:
    from asr_kd.report.sweep_figure import draw

    rows = [row.as_mapping() for row in result.rows]
    stamp = Stamp("sweep", {"grid": plan.grid, "systems": list(plan.systems)}, {"rows": digest_of(rows)})
    with replacing_folder(result.folder / "report", stamp) as temporary:
        write_json(temporary / "sweep.json", rows)
        (temporary / "sweep.svg").write_text(as_image(draw(result.rows)), encoding="utf-8")
        small = "Small dots are single seeds.\n" if any(row.seeds > 1 for row in result.rows) else ""
        text = f"{markdown(result)}\n\n![The sweep](sweep.svg)\n\n{small}{result.left_out}"
        (temporary / "sweep.md").write_text(text, encoding="utf-8")
