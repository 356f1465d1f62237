"""Image-level pretraining: predict which classes an image shows from its pooled patch tokens."""

from __future__ import annotations

from torch import Tensor, nn

from paka.objectives import Correspondences


class ImageTags(nn.Module):
    """Multi-label classification of the globals by global average pooling and one linear layer.

    The tags are image-level: no position enters. The pooling is that of class activation mapping
    (Zhou et al., 2016, arXiv 1512.04150).

    Args:
        dim: Channels of the encoder's tokens.
        tags: Number of tags T.

    Raises:
        ValueError: The source has no tags.
    """

    def __init__(self, dim: int, *, tags: int) -> None:
        super().__init__()
        if tags == 0:
            message = "objective=image_tags expected a source with image-level tags, this one has none: use data=scenes"
            raise ValueError(message)
        self.classifier = nn.Linear(dim, tags)

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the binary cross-entropy and the share of tags predicted right at a threshold of 0.5."""
        if batch.student_globals is None:
            message = "objective=image_tags looks at the student's globals: set augmentation=image_level"
            raise ValueError(message)
        logits = self.classifier(batch.student_globals.patches.mean(dim=(1, 2)))
        views = logits.shape[0] // batch.images
        target = batch.tags.repeat_interleave(views, dim=0)
        loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), target)
        accuracy = ((logits > 0) == (target > 0.5)).float().mean()
        return loss, {"tag_accuracy": accuracy}
