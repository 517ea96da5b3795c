"""What is taken from which Debian package, and under which licence."""

STAMPS_PACKAGE = "tuxpaint-stamps-default"
CREDITS = {
    STAMPS_PACKAGE: "cut-outs; (c) Bill Kendrick and the Tux Paint stamp authors; GPL-2+",
    "tuxpaint-data": "backgrounds; (c) Bill Kendrick and the Tux Paint authors; GPL-2+",
    "lomiri-wallpapers-16.04": "backgrounds; authors in the file names; "
    "CC-BY-4.0 or CC-BY-SA-4.0 per file, see the package's copyright file",
    "mate-backgrounds": "backgrounds; authors in the package's AUTHORS file; GPL-2+",
}

# Patterns below usr/share/tuxpaint/stamps; a leading "-" takes files out again: see-through or
# doubtful members. Files named *_mirror are copies of another cut-out and never used.
CLASSES = {
    "bird": ("animals/birds/*",),
    "carnivore": (
        "animals/mammals/bears/*",
        "animals/mammals/cats/*",
        "animals/mammals/dogs/*",
        "animals/mammals/badger.png",
    ),
    "flower": ("plants/flowers/*",),
    "fruit": ("food/fruit/*",),
    "gravestone": ("seasonal/halloween/grave-*",),
    "hoofed_mammal": (
        "animals/mammals/bovines/*",
        "animals/mammals/camel/*",
        "animals/mammals/deer/*",
        "animals/mammals/equines/*",
        "animals/mammals/giraffe.png",
        "animals/mammals/hippopotamus.png",
        "animals/mammals/pig*",
        "animals/mammals/rhino_black.png",
        "animals/mammals/wildboar.png",
    ),
    "household": (
        "household/*",
        "household/dishes/*",
        "household/dishes/utensils/*",
        "-household/dishes/glass.png",
    ),
    "instrument": ("hobbies/music/*/*",),
    "road_sign": (
        "town/roadsigns/*",
        "-town/roadsigns/stoplight*",
        "-town/roadsigns/traffic_cone.png",
    ),
    "sea_animal": (
        "animals/fish/*",
        "animals/mammals/aquatic/*",
        "animals/shellfish/*",
        "-animals/mammals/aquatic/otter.png",
    ),
    "small_mammal": (
        "animals/mammals/rodents/*",
        "animals/mammals/ferret.png",
        "animals/mammals/rabbit_little.png",
    ),
    "tool": (
        "household/tools/*",
        "household/arttools/scissors*",
        "-household/tools/cementmixer.png",
    ),
    "vegetable": ("food/vegetables/*", "plants/mushrooms/*"),
    "vehicle": (
        "vehicles/auto/*",
        "vehicles/construction/*",
        "vehicles/cycle/*",
        "vehicles/emergency/firetruck.png",
        "vehicles/flight/*",
        "vehicles/flight/planes/*",
        "vehicles/garbagetruck.png",
        "vehicles/masstransit/*",
        "vehicles/race/*",
        "vehicles/ship/*",
    ),
}

# Only photographs without anything that belongs to a class above: those with flowers, dandelions,
# sheep, dogs, jellyfish, insects, fruit, tools or instruments in view are left out.
PHOTOGRAPHS = {
    "lomiri-wallpapers-16.04": (
        "Bridge_by_Sander_Klootwijk",
        "aitzgorri_by_Aitzol_Berasategi",
        "analogpattern_by_Peter_Nerlich",
        "life_by_Aitzol_Berasategi",
        "picosdeeuropa_by_Aitzol_Berasategi",
        "sunset_by_Aitzol_Berasategi",
        "umang_by_Abhishek_Mudgal",
    ),
    "mate-backgrounds": (
        "Aqua",
        "Blinds",
        "Dune",
        "GreenMeadow",
        "RainDrops",
        "Storm",
        "Wood",
    ),
    "tuxpaint-data": (
        "burnt_bark",
        "cliff",
        "lighthouse",
        "mossy_bark",
        "mossy_log",
        "mudstone",
        "ocean_splash",
        "ocean_waves",
        "redwoods_above",
        "rocks",
        "sun_behind_clouds",
        "sun_behind_leaves",
        "trees_above",
        "trees_at_dusk",
        "wool_mill_machine",
    ),
}
