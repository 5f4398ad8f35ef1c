"""A recogniser on disk: a folder that needs neither corpus nor work folder, and holds no pickle.

recogniser.json   sampling rate, mel bins, scales, beams
model/            the net, see `asr_kd.acoustic.model_files`
tree.npz, graph.npz, phones.txt, words.txt, lexicon.txt, cmvn.npz
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydantic
from pydantic import TypeAdapter

from asr_kd.acoustic.joined import JoinedModels
from asr_kd.acoustic.model import FrameModel
from asr_kd.acoustic.model_files import join_models, load_model, save_model
from asr_kd.alignment.tree import read_tree, write_tree
from asr_kd.decoding.graph import read_graph, write_graph
from asr_kd.errors import UserError
from asr_kd.frames.normalisation import Normalisation
from asr_kd.io.files import read_json, write_json
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp
from asr_kd.lang.lexicon import read_lang, write_lang
from asr_kd.runtime.recogniser import Parts, Recogniser, RecogniserSettings
from asr_kd.settings import first_error, to_mapping

SETTINGS = "recogniser.json"
MODEL, NORMALISATION = "model", "cmvn.npz"


def write_recogniser(parts: Parts, folder: Path) -> None:
    """Writes everything into an existing folder."""
    model = folder / MODEL
    model.mkdir()
    if isinstance(parts.model, JoinedModels):
        names = [model / f"part{number}" for number in range(len(parts.model.models))]
        for part, name in zip(parts.model.models, names, strict=True):
            with replacing_folder(name, Stamp("export", {"part": name.name}, {})) as temporary:
                save_model(part, temporary)
        join_models(names, model)
    else:
        save_model(parts.model, model)
    write_tree(parts.tree, folder)
    write_graph(parts.graph, folder)
    write_lang(folder, parts.lang)
    normalisation = parts.normalisation
    arrays = {"means": normalisation.means, "scale": normalisation.scale}
    if normalisation.scales is not None:
        arrays["scales"] = normalisation.scales
    if normalisation.running is not None:
        arrays |= {"prior": normalisation.running.prior, "running_seconds": np.array(normalisation.running.seconds)}
    np.savez(folder / NORMALISATION, **arrays)
    write_json(folder / SETTINGS, to_mapping(parts.settings))


def load_recogniser(folder: str | Path) -> Recogniser:
    """What `asr-kd export SYSTEM DIR --format recogniser` wrote.

    Raises:
      UserError: the folder is none, or a file of it is missing or damaged.
    """
    return RecogniserFiles.of_folder(Path(folder)).load()


@dataclass(frozen=True)
class RecogniserFiles:
    """Where the parts of a recogniser are; unlike a recogniser it can be sent to another process.

    Attributes:
      model: its folder. members: how many of its first members answer; None: all.
      tree, graph, lang: folders.
    """

    model: Path
    members: int | None
    tree: Path
    graph: Path
    lang: Path
    normalisation: Normalisation
    settings: RecogniserSettings

    @classmethod
    def of_folder(cls, folder: Path) -> RecogniserFiles:
        """Of an exported recogniser; raises as `load_recogniser`."""
        path, advice = folder / SETTINGS, f"export it again: asr-kd export SYSTEM {folder} --format recogniser"
        if not path.exists():
            what = "a trained system, which asr_kd.load_model reads" if (folder / "model.yaml").exists() else "none"
            raise UserError(f"{folder} is no exported recogniser ({path.name} is missing) but {what}; {advice}.")
        try:
            data = TypeAdapter(dict[str, object]).validate_python(read_json(path, dict, advice))
            settings = TypeAdapter(RecogniserSettings).validate_json(pydantic.TypeAdapter(dict).dump_json(data))
        except pydantic.ValidationError as error:
            raise UserError(f"{path}: {first_error(error, RecogniserSettings)}; {advice}.") from None
        normalisation = _read_normalisation(folder / NORMALISATION, settings.num_mel_bins, advice)
        return cls(folder / MODEL, None, folder, folder, folder, normalisation, settings)

    def load(self) -> Recogniser:
        """Raises UserError where a file is missing or damaged."""
        model: FrameModel = load_model(self.model)
        if self.members is not None and self.members < model.members:
            model = model.select_members(list(range(self.members)))
        parts = (read_tree(self.tree), read_graph(self.graph), read_lang(self.lang))
        return Recogniser(Parts(model, *parts, self.normalisation, self.settings))


def _read_normalisation(path: Path, num_dims: int, advice: str) -> Normalisation:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            normalisation = Normalisation.of_arrays(arrays)
        normalisation.check(num_dims)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is missing or damaged ({error}); {advice}.") from None
    return normalisation
