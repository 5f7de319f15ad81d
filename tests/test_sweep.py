"""What a sweep says of the time that it will take."""

from sweep import Progress


def test_the_time_left_is_counted_in_steps(a_run):
    """A step on one image takes about as long as one on 64."""
    one_image = a_run(overfit_images=1, batch_size=1, epochs=300)
    one_batch = a_run(overfit_images=64, batch_size=64, epochs=300)
    progress = Progress([one_image, one_batch])
    progress.update(one_image, 0.0, False)
    progress.update(one_image, 90.0, False)
    # 90 steps in 9 s; 210 and 300 are left, with validation a third more: 680 at 10 a second
    assert "about 68 seconds, at 10 images/s" in progress.estimate(9.0)
    progress.close()


def test_runs_on_more_images_take_longer(a_run):
    standard, halves = a_run(dataset="cifar10"), a_run(dataset="cifar10", split="halves")
    progress = Progress([standard, halves])
    progress.update(standard, 0.0, False)
    progress.update(standard, 0.5, False)
    # 22,500 images in 10 s; 1.5 epochs of 45,000 + 5,000 / 3 are left, and 2 of 25,000 · 4 / 3
    assert "about 61 seconds, at 2,250 images/s" in progress.estimate(10.0)
    progress.close()
