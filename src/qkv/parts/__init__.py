"""The parts every family is built from: tensors in, tensors out.  Nothing here knows a family's name."""
