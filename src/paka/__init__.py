"""Label-free post-training that improves the dense features of pretrained vision transformers."""

import os

# Albumentations asks the network for news of itself at import unless this is set before.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
