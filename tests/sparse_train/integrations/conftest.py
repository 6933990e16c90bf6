from tests.torchvision_that_fits import torchvision

torchvision()
