"""The EMA teacher: a real copy, an exact average, never trained."""

from __future__ import annotations

import torch
from tests.doubles import tiny_encoder

from paka.encoder import create_encoder
from paka.head import Branch, ProjectionHead
from paka.teacher import EMATeacher


def branch() -> Branch:
    return Branch(tiny_encoder(), ProjectionHead(16, hidden=12, out=8))


def test_it_starts_as_a_copy_that_shares_no_memory() -> None:
    student = branch()
    teacher = EMATeacher(student)
    for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
        assert mine.data_ptr() != theirs.data_ptr()
        assert not mine.requires_grad
        assert theirs.requires_grad


def test_one_update_is_the_weighted_mean() -> None:
    student = branch()
    teacher = EMATeacher(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    expected = [
        0.9 * mine + 0.1 * theirs
        for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True)
    ]
    teacher.update(student, 0.9)
    for mine, value in zip(teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, value)


def test_it_stays_in_evaluation_mode() -> None:
    teacher = EMATeacher(branch())
    teacher.train()
    assert not any(module.training for module in teacher.modules())


def test_only_the_student_drops_paths() -> None:
    arch = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32}
    torch.manual_seed(0)
    encoder = create_encoder("vit_tiny_patch16_224", arch=arch, pretrained=False, drop_path=0.5)
    student = Branch(encoder, ProjectionHead(16, hidden=12, out=8))
    images = torch.randint(0, 256, (8, 3, 32, 32)).byte()
    for side, same in ((student, False), (EMATeacher(student), True)):
        one, two = (side.train().encoder(images).patches for _ in range(2))
        assert torch.equal(one, two) == same
