"""How many pictures of what size a data set has: the table to tune."""

from dataclasses import dataclass

PHOTOGRAPHS_LIGHT = ("tuxpaint-data", "lomiri-wallpapers-16.04")


@dataclass(frozen=True)
class Scale:
    """Sizes of one data set; sides in pixels, counts as (train, val)."""

    classes: tuple[str, ...]  # names in debian.CLASSES; the shapes source has its own
    background_packages: tuple[str, ...]
    scenes: tuple[int, int]
    scene_size: tuple[int, int]  # (width, height)
    objects: tuple[int, int]  # fewest and most in a scene, both included
    object_side: tuple[int, int]  # long side, drawn log-uniform
    visibility: float  # least fraction of an object that no other object or border hides
    polygon_tolerance: float  # pixels; 0.5 keeps 0.9998 of the mask, 0.75 halves the json
    images: tuple[int, int]  # classification, all classes together
    image_side: int
    image_object: tuple[float, float]  # long side as a fraction of image_side, log-uniform


SMALL_CLASSES = (
    "bird",
    "flower",
    "fruit",
    "hoofed_mammal",
    "road_sign",
    "sea_animal",
    "vehicle",
)
FULL_CLASSES = SMALL_CLASSES + (
    "carnivore",
    "gravestone",
    "household",
    "instrument",
    "small_mammal",
    "tool",
    "vegetable",
)

SCALES = {
    "small": Scale(
        classes=SMALL_CLASSES,
        background_packages=PHOTOGRAPHS_LIGHT,
        scenes=(600, 120),
        scene_size=(192, 160),
        objects=(2, 4),
        object_side=(40, 100),
        visibility=0.4,
        polygon_tolerance=0.5,
        images=(4200, 700),
        image_side=112,
        image_object=(0.5, 0.95),
    ),
    "full": Scale(
        classes=FULL_CLASSES,
        background_packages=PHOTOGRAPHS_LIGHT + ("mate-backgrounds",),
        scenes=(8000, 800),
        scene_size=(640, 480),
        objects=(3, 8),
        object_side=(70, 300),
        visibility=0.25,
        polygon_tolerance=0.75,
        images=(40000, 4000),
        image_side=144,
        image_object=(0.5, 0.95),
    ),
}
