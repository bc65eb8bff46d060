"""Data sets, their batches and their augmentation."""

from robustgen.data.arrays import arrays as arrays  # your own arrays
from robustgen.data.arrays import npz as npz  # your own .npz file
from robustgen.data.augment import Augment as Augment  # (x, keys) -> x
from robustgen.data.augment import compose as compose  # one augmentation after the other
from robustgen.data.augment import flip as flip  # mirrored or not
from robustgen.data.augment import none as none  # images as they are
from robustgen.data.augment import pad_crop as pad_crop  # shifted by up to `pad` pixels
from robustgen.data.digits import digits as digits  # scikit-learn's 8 x 8 digits, no download
from robustgen.data.epochs import Order as Order  # one epoch's permutation, carried through a loop
from robustgen.data.epochs import batch_indices as batch_indices  # the definition: (key, step) -> examples
from robustgen.data.epochs import indices as indices  # the same, given the epoch's order
from robustgen.data.epochs import order_at as order_at  # the order of a step's epoch
from robustgen.data.epochs import renew as renew  # the next order, where a new epoch begins
from robustgen.data.epochs import steps_per_epoch as steps_per_epoch  # whole batches in one epoch
from robustgen.data.epochs import take as take  # indices -> Batch, on the device
from robustgen.data.source import DataError as DataError  # data missing or damaged, with the remedy
from robustgen.data.source import Source as Source  # a data set
from robustgen.data.source import Split as Split  # x and y as stored
from robustgen.data.source import TestSplitError as TestSplitError  # training asked for the test split
from robustgen.data.source import fingerprint as fingerprint  # SHA-256 of a split
from robustgen.data.source import first as first  # the first n examples of each split
from robustgen.data.source import scaled as scaled  # a split as models see it
from robustgen.data.source import sealed as sealed  # without its test split
from robustgen.data.stream import stream as stream  # shuffled, augmented batches for a training step
from robustgen.data.tfds import tfds as tfds  # mnist, fashion_mnist, cifar10, ... of the TFDS catalogue
