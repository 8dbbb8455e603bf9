"""Virtual patients: anatomy, images and kinetics that are known exactly, written as DICOM. Used by no stage.

Only the demo, the tests, the benchmarks and the training of the miniature segmentation model know this package.
"""
