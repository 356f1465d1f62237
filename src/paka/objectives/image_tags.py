"""Image-level pretraining: predict an image's tags from its pooled patch tokens."""

from __future__ import annotations

from torch import Tensor, nn

from paka.objectives import Correspondences


class ImageTags(nn.Module):
    """Classification of the globals by global average pooling, one linear layer and a softmax.

    An image with several tags has them as targets in equal shares (Mahajan et al., 2018, arXiv 1805.00932); no
    position enters. The pooling is that of class activation mapping (Zhou et al., 2016, arXiv 1512.04150).

    Args:
        dim: Channels of the encoder's tokens.
        tags: Number of tags T.

    Raises:
        ValueError: The source has no tags.
    """

    def __init__(self, dim: int, *, tags: int) -> None:
        super().__init__()
        if tags == 0:
            raise ValueError(
                "objective=image_tags expected a source with image-level tags, this one has none: use data=portraits"
            )
        self.classifier = nn.Linear(dim, tags)

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy, and the share of images whose best tag is one of theirs.

        Args:
            batch: Reads `student_globals`, `images` and `tags`; an image without any tag does not count.

        Raises:
            ValueError: The augmentation renders no globals for the student.
        """
        if batch.student_globals is None:
            raise ValueError(
                "objective=image_tags looks at the student's globals: set augmentation=image_level"
            )
        logits = self.classifier(batch.student_globals.patches.mean(dim=(1, 2))).float()
        tags = batch.tags.repeat_interleave(len(logits) // batch.images, dim=0)
        target = tags / tags.sum(dim=1, keepdim=True).clamp_min(1)
        loss = nn.functional.cross_entropy(logits, target)
        hit = tags.gather(1, logits.argmax(dim=1, keepdim=True))
        return loss, {"tag_accuracy": hit.mean()}
