"""TotalSegmentator's own command, in an environment without torchvision.

nnU-Net searches all of its trainers for that of a model, and one imports torchvision, which PyPI has for CUDA only.
Here the trainers are named beforehand; nothing else differs from the command `TotalSegmentator`.
"""

import totalsegmentator.nnunet
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import nnUNetTrainerNoMirroring
from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs_NoMirroring import (
    nnUNetTrainer_4000epochs_NoMirroring,
)
from totalsegmentator.bin.TotalSegmentator import main

if __name__ == "__main__":
    for trainer in (nnUNetTrainerNoMirroring, nnUNetTrainer_4000epochs_NoMirroring):
        totalsegmentator.nnunet.custom_trainers[trainer.__name__] = trainer
    main()
