"""A package, so that processes that tests start find it before the tests of detectron2."""
