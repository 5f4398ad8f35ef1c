"""The MNIST experiments of Hinton, Vinyals, Dean (2015), section 3, on top of the asr_kd library."""
