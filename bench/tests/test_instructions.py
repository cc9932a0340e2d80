"""Where a response begins.

python3 -m unittest discover -s bench/tests
"""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from instructions import encode  # noqa: E402

EOS = 9


class Tokens:
    """A tokenizer that answers with the given spans, behind a BOS of the template."""

    eos_token_id = EOS

    def __init__(self, *spans, eos=False):
        self.spans, self.eos = spans, eos

    def __call__(self, text, return_offsets_mapping, return_special_tokens_mask):
        assert return_offsets_mapping and return_special_tokens_mask
        end = [(0, 0)] if self.eos else []
        return {
            "input_ids": [1, *range(10, 10 + len(self.spans)), *([EOS] if self.eos else [])],
            "offset_mapping": [(0, 0), *self.spans, *end],
            "special_tokens_mask": [1, *(0 for _ in self.spans), *(1 for _ in end)],
        }


class Encode(unittest.TestCase):
    def begins(self, prompt, response, *spans, **options):
        return encode(Tokens(*spans, **options), prompt, response).response_begins

    def test_a_token_at_the_border_is_of_the_response(self):
        self.assertEqual(self.begins("ab", "cd", (0, 2), (2, 3), (3, 4)), 2)

    def test_a_token_across_the_border_is_of_the_prompt(self):
        self.assertEqual(self.begins("ab", "cd", (0, 1), (1, 3), (3, 4)), 3)

    def test_a_token_has_the_space_that_its_span_leaves_out(self):
        # "a", " b", " c": the space before "b" is the prompt's, so the token is.
        self.assertEqual(self.begins("a ", "b c", (0, 1), (2, 3), (4, 5)), 3)
        # "a", " b": the space is the response's.
        self.assertEqual(self.begins("a", " b", (0, 1), (2, 3)), 2)
        # "a", "  ", "b": all of the middle token is left out of its span.
        self.assertEqual(self.begins("a", "  b", (0, 1), (3, 3), (3, 4)), 2)

    def test_the_tokens_of_one_character_stay_together(self):
        self.assertEqual(self.begins("aé", "b", (0, 1), (1, 2), (1, 2), (2, 3)), 4)

    def test_the_end_is_of_the_response(self):
        for eos in (False, True):
            example = encode(Tokens((0, 2), eos=eos), "a", "b")
            self.assertEqual(example.ids, [1, 10, EOS])
            self.assertEqual((example.response_begins, example.response_tokens), (2, 1))


if __name__ == "__main__":
    unittest.main()
