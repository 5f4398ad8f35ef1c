"""What pytest leaves out of the examples in the package: modules whose decoder is not installed."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("k2") else ["asr_kd/decoding/k2_decoder.py"]
