"""Captions of some images of COCO, and what people said of them."""

REFERENCES = {
    "139": [
        "A woman stands in the dining area at the table.",
        "A room with chairs, a table, and a woman in it.",
        "A woman standing in a kitchen by a window",
    ],
    "285": [
        "A big burly grizzly bear is shown with grass in the background.",
        "The large brown bear has a black nose.",
    ],
    "632": ["Bedroom scene with a bookcase, blue comforter and window."],
    "724": ['A stop sign is mounted "upside-down" on its post. ', "It's a café's sign - in the U.S. (don't stop!)"],
}
CAPTIONS = {
    "139": "a woman standing in a room with a table",
    "285": "a brown bear is sitting in the grass",
    "632": "A bedroom, with a bed and a bookcase.",
    "724": "a café's stop sign on a post",
}
