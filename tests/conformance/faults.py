"""The known failures of real servers and models, as switches, and what a model says."""

from __future__ import annotations

from enum import Enum, auto

from fumehood.protocol.record import Record


class Fault(Enum):
    """One switch per known failure."""

    # Prompt
    DOUBLES_BOS = auto()
    FORGETS_BOS = auto()
    FORGETS_EOS = auto()
    DROPS_TOOLS = auto()
    DROPS_TOOLS_LATER = auto()
    SHOWS_TOOLS_LATE = auto()
    SHOWS_RESULTS_SWAPPED = auto()
    DROPS_TOOL_RESULTS = auto()
    DROPS_ARGUMENTS = auto()
    SWAPS_RESULTS = auto()
    PRINTS_TOOL_PARTS = auto()
    PRINTS_USER_PARTS = auto()
    PARSES_CONTROL_TEXT = auto()
    PARSES_CONTROL_TEXT_OF_TOOLS = auto()
    COUNTS_NEW_TOKENS_ALONE = auto()
    COUNTS_NOTHING = auto()
    IGNORES_IMAGES = auto()
    SHRINKS_IMAGES = auto()
    HIDES_A_SYSTEM_PROMPT = auto()
    KEEPS_TRAILING_SPACES = auto()
    DROPS_SYSTEM_PROMPTS = auto()
    COMPACTS_TOOLS = auto()
    CUTS_WORDS_OTHERWISE = auto()
    # Calls
    LEAKS_CALLS = auto()
    ARGUMENTS_AS_OBJECT = auto()
    EMPTY_ARGUMENTS = auto()
    STOPS_FOR_CALLS = auto()
    SAYS_LENGTH_ALWAYS = auto()
    DROPS_CONTENT_BESIDE_CALLS = auto()
    REPEATS_IDS = auto()
    OMITS_IDS = auto()
    REFUSES_ITS_IDS = auto()
    GLUES_CALLS = auto()
    GLUES_STREAMED_CALLS = auto()
    LOSES_SECOND_CALL = auto()
    CALLS_WHAT_IS_NOT_OFFERED = auto()
    WRITES_CALLS_NOT_OFFERED = auto()
    HIDES_TRUNCATION = auto()
    PHANTOMS_IN_ARGUMENTS = auto()
    PHANTOMS_IN_PROSE = auto()
    BREAKS_INTEGERS = auto()
    DIFFERS_IN_NESTING = auto()
    REFUSES_EMPTY_PARAMETERS = auto()
    # Choice
    IGNORES_NONE = auto()
    LEAKS_UNDER_NONE = auto()
    IGNORES_REQUIRED = auto()
    IGNORES_NAMED = auto()
    FAILS_ON_ANY = auto()
    IGNORES_ONE_AT_A_TIME = auto()
    # History
    REFUSES_NULL_CONTENT = auto()
    PRINTS_NULL_CONTENT = auto()
    REFUSES_NULL_CALLS = auto()
    REFUSES_EXTRA_FIELDS = auto()
    REFUSES_USER_AFTER_TOOL = auto()
    DROPS_USER_AFTER_TOOL = auto()
    REFUSES_TWO_USERS = auto()
    DROPS_FIRST_OF_TWO_USERS = auto()
    FAILS_ON_BROKEN_ARGUMENTS = auto()
    # Stream
    EATS_BRACKETS = auto()
    REPEATS_NAMES = auto()
    OMITS_INDEX = auto()
    LOSES_A_PIECE = auto()
    OMITS_DONE = auto()
    OMITS_FINISH_REASON = auto()
    WRONG_CONTENT_TYPE = auto()
    HANGS_UP = auto()
    OMITS_USAGE_IN_STREAMS = auto()
    CUTS_CHARACTERS = auto()
    CUTS_CHARACTERS_OF_EVENTS = auto()
    KEEPS_WORKING = auto()
    ENDS_STREAMS_IN_SILENCE = auto()
    WRITES_STREAMED_ERRORS_AS_TEXT = auto()
    # JSON
    FENCES_JSON = auto()
    IGNORES_SCHEMAS = auto()
    FAILS_ON_JSON_BESIDE_TOOLS = auto()
    CALLS_IN_JSON = auto()
    # Context
    CUTS_CONTEXT = auto()
    FORGETS_THE_BEGINNING = auto()
    FORGETS_AFTER_THOUSANDS = auto()
    FAILS_ON_LARGE_MAX_TOKENS = auto()
    HANGS_UP_ON_LARGE_MAX_TOKENS = auto()
    # Errors and identity
    SERVER_ERRORS = auto()
    ANSWERS_TO_NOTHING = auto()
    ANY_MODEL_NAME = auto()
    FAILS_ON_UNKNOWN_FIELDS = auto()
    ERRORS_IN_HTML = auto()
    NEVER_THE_SAME = auto()
    IGNORES_SEEDS = auto()
    REFUSES_WITHOUT_A_TIME = auto()
    FAILS_WHEN_BUSY = auto()
    HIDES_ITS_MODEL = auto()
    # The card's tests
    TELLS_STORIES_AT_ONCE = auto()
    ANSWERS_NOTHING_AFTER_TOOLS = auto()
    CALLS_WITHOUT_END = auto()
    CALLS_BY_THE_DOZEN = auto()
    WRITES_BEYOND_ITS_LIMIT = auto()
    SWAPS_OPERANDS = auto()
    GUESSES_RESULTS = auto()
    LEAVES_AN_EQUATION_OUT = auto()
    MISREADS_RESULTS = auto()
    SAYS_NOTHING_BESIDE_CALLS = auto()
    WRITES_BROKEN_CODE = auto()
    RETURNS_NO_TEXT = auto()
    WRITES_NO_CODE = auto()
    CALLS_FOR_TALK = auto()
    LEAVES_FENCES_OPEN = auto()
    ANSWERS_IN_SHORT = auto()
    FORGETS_ITS_NAME = auto()
    MAKES_RESULTS_UP = auto()
    WRITES_WRONG_PROGRAMS = auto()
    TELLS_OTHER_RESULTS = auto()


class Output(Record):
    """What the model says: a content, and calls as (name, arguments as text)."""

    content: str = ""
    calls: tuple[tuple[str, str], ...] = ()
