"""The MNIST experiments of Hinton, Vinyals, Dean (2015), section 3, through the loss and the loop that speech uses."""
