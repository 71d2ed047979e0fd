"""Matrix sentences of the embedded corpus: name, verb, number, adjective, noun, each one of ten words.

The form is that of speech audiometry (Hagerman, Scand. Audiol. 11, 1982; Wagener, Kuehnel and Kollmeier 1999); the
words are our own. Every list spells with few surprises, and together the English ones use all 26 letters, so that a
small recogniser can learn to write from little speech. The words carry no feeling.
"""

SLOTS = {
    "en": (
        ("Clara", "Victor", "Hanna", "Oscar", "Judith", "Felix", "Wendy", "Bruno", "Quincy", "Martha"),
        ("paints", "finds", "carries", "sells", "wants", "draws", "keeps", "steals", "brings", "loves"),
        ("two", "four", "five", "seven", "eight", "nine", "eleven", "twelve", "fifteen", "thirty"),
        ("golden", "quiet", "heavy", "broken", "yellow", "dusty", "narrow", "fresh", "purple", "modern"),
        ("boxes", "kites", "jackets", "violins", "lamps", "zebras", "ladders", "mugs", "rockets", "chairs"),
    ),
    "de": (
        ("Clara", "Viktor", "Hanna", "Oskar", "Jutta", "Felix", "Wanda", "Bruno", "Xaver", "Martha"),
        ("malt", "findet", "trägt", "verkauft", "braucht", "zeichnet", "behält", "stiehlt", "bringt", "liebt"),
        ("zwei", "vier", "fünf", "sieben", "acht", "neun", "elf", "zwölf", "zwanzig", "dreißig"),
        ("goldene", "leise", "schwere", "kaputte", "gelbe", "staubige", "schmale", "frische", "quadratische",
         "moderne"),
        ("Kisten", "Drachen", "Jacken", "Geigen", "Lampen", "Zebras", "Leitern", "Tassen", "Raketen", "Stühle"),
    ),
}
WORDS = 10  # in a slot


class Matrix:
    """Deals combinations of one part of all 100,000, none twice before the part is used up.

    The numbers of the five words add up to a remainder modulo ten, and a part is all combinations with certain
    remainders. Parts with other remainders therefore share no sentence, whatever is drawn, yet each knows every word in
    every slot and every run of four words.

    Args:
      language: key of SLOTS.
      remainders: of this part, some of 0..9.
      draw: random.Random.
    """

    def __init__(self, language, remainders, draw):
        self._slots, self._remainders, self._draw = SLOTS[language], list(remainders), draw
        self._said = set()

    def next(self):
        """A sentence of the part."""
        if len(self._said) == len(self._remainders) * WORDS ** 4:
            self._said.clear()
        while True:
            numbers = [self._draw.randrange(WORDS) for _ in range(4)]
            numbers.append((self._draw.choice(self._remainders) - sum(numbers)) % WORDS)
            text = " ".join(words[number] for words, number in zip(self._slots, numbers, strict=True)) + "."
            if text not in self._said:
                self._said.add(text)
                return text
