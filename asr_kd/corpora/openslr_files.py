"""What OpenSLR has of LibriSpeech: each file's place, size and sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asr_kd.corpora.transfer import RemoteFile


@dataclass(frozen=True)
class Release:
    """What can be downloaded: archives by the name of their part, the lexicon, language models by their name."""

    parts: Mapping[str, RemoteFile]
    lexicon: RemoteFile
    language_models: Mapping[str, RemoteFile]


_SITE = "https://www.openslr.org/resources"


def _part(resource: int, name: str, size: int, sha256: str) -> tuple[str, RemoteFile]:
    return name, RemoteFile(f"{_SITE}/{resource}/{name}.tar.gz", size, f"sha256:{sha256}", "--corpus-dir")


def _language_model(name: str, size: int, md5: str) -> tuple[str, RemoteFile]:
    return name, RemoteFile(f"{_SITE}/11/{name}.arpa.gz", size, f"md5:{md5}", "--lm")


# Sums. Resource 12: torchaudio.datasets.librispeech; resource 31: recorded by several projects beside the MD5 sums that
# OpenSLR publishes for it; resource 11: MD5, as github.com/sdrobert/pytorch-database-prep has them in librispeech.py
# together with those that OpenSLR publishes for 12.
# Sizes: Kaldi's egs/{librispeech,mini_librispeech}/s5/local/download_{and_untar,lm}.sh.
OPENSLR = Release(
    parts=dict(
        [
            _part(12, "dev-clean", 337926286, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
            _part(12, "dev-other", 314305928, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
            _part(12, "test-clean", 346663984, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
            _part(12, "test-other", 328757843, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
            _part(
                12, "train-clean-100", 6387309499, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"
            ),
            _part(
                12, "train-clean-360", 23049477885, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"
            ),
            _part(
                12, "train-other-500", 30593501606, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"
            ),
            _part(31, "dev-clean-2", 126046265, "176ec501490eced2d6c1f89f4f0ddc7dfe799e649e5322f8ba49fe3ff50c8012"),
            _part(31, "train-clean-5", 332954390, "47805806c8b15f7549f3c51bd6b7da72ec0128a34d32830c8014a88658c0292d"),
        ]
    ),
    lexicon=RemoteFile(
        f"{_SITE}/11/librispeech-lexicon.txt", 5627653, "md5:28f72663f6bfed7cd346283c064c315b", "--lexicon"
    ),
    language_models=dict(
        [
            _language_model("3-gram.pruned.3e-7", 13654242, "8f67ec741827742eee05799ab7605b50"),
            _language_model("3-gram.pruned.1e-7", 34094057, "9a0f1325bcaf3a0f7b7be4be10823c2a"),
            _language_model("3-gram", 759636181, "74cbb837e582378c26c602e1c8cbcb9c"),
        ]
    ),
)
