"""An action on a model of your own, in Python: `python examples/own_model.py` (ttca[learn,data]; about a minute)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import ttca
from ttca.data.cameras import bad_camera
from ttca.data.digits import load_digits_images


def main(folder: str = "runs/own-model") -> None:
    """Train a model, blur the pictures of every second person, and prove what δ does for them."""
    images, labels = load_digits_images(16)
    model = LogisticRegression(max_iter=300).fit(images[:700].reshape(700, -1) / 255, labels[:700])

    def predict(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        shares: NDArray[np.float64] = model.predict_proba(pictures.reshape(len(pictures), -1) / 255)
        return shares

    blurred = np.arange(600) % 2 == 0
    pale = bad_camera(images[700:1300], seed=0, blur=1.2, contrast=0.4, veil=60.0, noise=4.0)
    pictures = np.where(blurred[:, None, None, None], pale, images[700:1300])
    with ttca.CollectiveAction(
        folder,
        platform=ttca.LocalPlatform(predict, classes=tuple("0123456789"), image_shape=(16, 16, 3)),
        members=[ttca.Member("me", quota=5_000)],
        roster=ttca.split_roles(ttca.People.build(pictures, labels[700:1300], subgroup=blurred), seed=0),
        settings=ttca.Settings(epsilons=(16,), epochs=15, steps=30, goal="improvement", weights="none"),
    ) as action:
        print(action.pool().served())
        print(action.verify().summary())
        print("The members' file:", action.handed_out() or "none, since nothing was shown")


if __name__ == "__main__":
    main()
