"""Pictures: from files to arrays of bytes, to what a model reads, and noise on the way.

sources.py   folders of class folders, tar archives, idx pairs: named pictures, each used or counted in a SkipReport
coco.py      boxes in COCO's JSON
decode.py    one file -> (H, W, channels) uint8, distrusting the file
process.py   resize, crop, rescale, normalise, pad: preprocessor_config.json
augment.py   crop, flip, RandAugment, erase: a pure function of (seed, step, row)"""
