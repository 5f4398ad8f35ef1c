"""A recogniser on disk: a folder that needs neither corpus nor work folder, and holds no pickle.

recogniser.json   sampling rate, mel bins, scales, beams
model/            the net, see `asr_kd.acoustic.model_files`
tree.npz, graph.npz, phones.txt, words.txt, lexicon.txt, cmvn.npz
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydantic
from pydantic import TypeAdapter

from asr_kd.acoustic.joined import JoinedModels
from asr_kd.acoustic.model_files import join_models, load_model, save_model
from asr_kd.alignment.tree import read_tree, write_tree
from asr_kd.decoding.graph import read_graph, write_graph
from asr_kd.errors import UserError
from asr_kd.frames.normalisation import CMVN, Normalisation
from asr_kd.io.files import DAMAGED_ARRAYS, read_json, write_json
from asr_kd.io.folders import replacing_folder
from asr_kd.io.stamp import Stamp
from asr_kd.lang.lexicon import read_lang, write_lang
from asr_kd.runtime.recogniser import Parts, Recogniser, RecogniserSettings
from asr_kd.settings import first_error, to_mapping

SETTINGS = "recogniser.json"
MODEL = "model"
_EXPORT = "asr-kd export SYSTEM {folder} --format recogniser --config CONFIG"


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
    np.savez(folder / CMVN, **parts.normalisation.arrays())
    write_json(folder / SETTINGS, to_mapping(parts.settings))


def load_recogniser(folder: str | Path) -> Recogniser:
    """What `asr-kd export SYSTEM DIR --format recogniser` wrote.

    Raises:
      UserError: the folder is no exported recogniser, or a file of it is missing or damaged.
    """
    return RecogniserFiles.of_folder(Path(folder)).load()


@dataclass(frozen=True)
class RecogniserFiles:
    """The places of a recogniser's parts; unlike a recogniser they can be sent to another process.

    Attributes:
      model: its folder. members: how many of its first members answer; None: all.
      tree, graph, lang: folders.
      exported: what is damaged can only be exported again.
    """

    model: Path
    members: int | None
    tree: Path
    graph: Path
    lang: Path
    normalisation: Normalisation
    settings: RecogniserSettings
    exported: bool = False

    @property
    def name(self) -> str:
        """The name of the exported folder, or of the system's."""
        model = self.model.resolve()
        return model.parent.name if model.name == MODEL else model.name

    @classmethod
    def of_folder(cls, folder: Path) -> RecogniserFiles:
        """Returns the files of an exported recogniser; raises as `load_recogniser`."""
        path, advice = folder / SETTINGS, _EXPORT.format(folder=folder)
        if not path.exists():
            raise UserError(f"{folder} {_instead(folder)}; make a recogniser: {advice}.")
        try:
            written = json.dumps(read_json(path, dict, f"export it again: {advice}."))
            settings = TypeAdapter(RecogniserSettings).validate_json(written)
        except pydantic.ValidationError as error:
            raise UserError(f"{path}: {first_error(error, RecogniserSettings)}; export it again: {advice}.") from None
        normalisation = _read_normalisation(folder / CMVN, settings.num_mel_bins, advice)
        return cls(folder / MODEL, None, folder, folder, folder, normalisation, settings, exported=True)

    def parts(self) -> Parts:
        """Raises UserError where a file is missing or damaged, or of another system."""
        try:
            model = load_model(self.model)
            model = model if self.members is None else model.first_members(self.members)
            files = (read_tree(self.tree), read_graph(self.graph), read_lang(self.lang))
            parts = Parts(model, *files, self.normalisation, self.settings)
            parts.check()
        except UserError as error:
            if not self.exported:
                raise
            what = str(error).partition("; ")[0].rstrip(".")  # without advice for work folders
            raise UserError(f"{what}; export it again: {_EXPORT.format(folder=self.tree)}.") from None
        return parts

    def load(self) -> Recogniser:
        """Raises as `parts`."""
        return Recogniser(self.parts())


def _instead(folder: Path) -> str:
    """What the folder is in place of a recogniser, after its name."""
    if not folder.exists():
        return "does not exist"
    if (folder / "model.yaml").exists():
        return "is a trained system, which asr_kd.load_model reads"
    if (folder / "export.json").exists():
        return "was exported in another format"
    return f"is no exported recogniser ({SETTINGS} is missing)"


def _read_normalisation(path: Path, num_dims: int, advice: str) -> Normalisation:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            normalisation = Normalisation.of_arrays(arrays)
        normalisation.check(num_dims)
    except DAMAGED_ARRAYS as error:
        raise UserError(f"{path} is missing or damaged ({error}); export it again: {advice}.") from None
    return normalisation
