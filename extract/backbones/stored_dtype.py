"""Rule of ``plan.stored_dtype = "auto"``: the dtype on disk follows from the largest latent of a few fixed texts.

The texts never change with the corpus, the plan or the machine, so every machine decides alike for a backbone. The
headroom covers texts that go beyond them and the rounding of the forward pass.
"""

from permafrost.data.digests import digest_of_parts
from permafrost.data.store.identity import AUTO_STORED_DTYPES

FLOAT16_LARGEST = 65504.0

HEADROOM = 4.0
"""Factor by which the latents of the pilot texts must stay below the largest float16."""

PILOT_TOKENS = 256
"""Maximum number of tokens of a pilot text, if the backbone reads as many."""

PILOT_TEXTS = (
    "The",
    "dog",
    "Yes.",
    "A small brown dog runs over the green grass.",
    "Who wrote the letter that was found in the old house, and when did it arrive?",
    "\"Stop!\" she said -- then, after a pause: (almost) nobody; not one of them, moved ... at all?!",
    "In 1984, 3,141,592 of 65,504 items (48.0 %) cost $1,299.99 + 7e-5; call 555-0199 before 12:30.",
    "def area(r):\n    if r < 0:\n        raise ValueError(f\"{r=}\")\n    return 3.14159 * r ** 2  # O(1)\n",
    "<html><body class=\"x\">&nbsp;<a href=\"https://example.org/a?b=c&d=%20\">link</a></body></html>",
    "Die Straßenbahn fährt über die Brücke; là-bas, l'été dernier, où étiez-vous? ¿Mañana también?",
    "Собака бежит по траве. 小さな犬が草の上を走る。 العربية مكتوبة من اليمين إلى اليسار. 🐕🌱",
    "aaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbb !!!!!!!!!!!!!!!! ________________ 0000000000000000",
    "the the the the the the the the the the the the the the the the the the the the the the the the",
    "\n\n\n.\n\n\n,\n\n\n.",
    " ".join(
        [
            "The committee met on Tuesday to discuss the budget for the coming year, and most members agreed that",
            "the library should stay open in the evening. One of them asked whether the roof, which had been repaired",
            "twice since the storm, would last another winter. Nobody could say. The treasurer read the figures aloud:",
            "12,400 for heating, 3,150 for books, and 980 for everything else. After an hour the chair closed it,",
            "thanked the guests, and reminded everyone that the next one would be held in the school.",
        ]
        * 4
    ),
)  # fmt: skip
"""Texts that are run: short and long, with punctuation, digits, code, several scripts and repetitions."""


def choose_stored_dtype(peak: float) -> str:
    """Return the dtype on disk for a backbone whose latents of the pilot texts are at most ``peak`` in magnitude."""
    float16, bfloat16 = AUTO_STORED_DTYPES
    return float16 if HEADROOM * peak <= FLOAT16_LARGEST else bfloat16


def pilot_key(weights: str, tokenizer: str, compute_dtype: str, final_norm: bool) -> str:
    """Return the key under which the peak of a backbone is remembered; arguments as of an identity."""
    texts = digest_of_parts([str(PILOT_TOKENS).encode(), *map(str.encode, PILOT_TEXTS)])
    return f"pilot {texts} {weights} {tokenizer} {compute_dtype} final_norm {final_norm}"
