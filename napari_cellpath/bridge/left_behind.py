"""Layers of ours whose image was closed: hidden, so that they do not lie over the next one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from napari.layers import Image, Layer

from napari_cellpath.bridge.conventions import facts_of, image_of, reunite, set_facts

HIDDEN = "hidden_with_image"
"""Fact of a layer that we hid; one that its user hid does not come back by itself."""


def hide(image: Image, layers: Iterable[Layer]) -> int:
    """Hide what belongs to an image that was just removed; return how many layers that were."""
    link = facts_of(image).get("link")
    if not link:
        return 0
    left = [x for x in layers if x.visible and facts_of(x).get("image_link") == link]
    for layer in left:
        set_facts(layer, **{HIDDEN: True})
        layer.visible = False
    return len(left)


def show_again(layers: Iterable[Layer]) -> list[Image]:
    """Show what `hide` hid and whose image is there again; return these images."""
    known = list(layers)
    images: list[Image] = []
    for layer in known:
        image = facts_of(layer).get(HIDDEN) and (image_of(layer, known) or reunite(layer, known))
        if image:
            set_facts(layer, **{HIDDEN: False})
            layer.visible = True
            images += [image] * (image not in images)
    return images


def lay_under(image: Image, layers: Any) -> None:
    """Put an image under the layers that belong to it: opened again, it would hide them."""
    link = facts_of(image).get("link")
    own = [n for n, x in enumerate(layers) if link and facts_of(x).get("image_link") == link]
    if own and image in layers and layers.index(image) > min(own):
        layers.move(layers.index(image), min(own))
