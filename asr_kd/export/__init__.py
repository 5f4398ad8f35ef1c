"""What leaves the work folder: posteriors for other toolkits, models that run elsewhere."""

PRECISIONS = ("float32", "float16", "int8", "int8-static")  # of exported models; int8-static not of streams
FORMS = ("onnx", "sherpa", "recogniser", "kaldi")  # of `asr-kd export`
