"""The card's long conversation: two sentences again and again, and one fact between them, at any length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .asking import assistant, user

if TYPE_CHECKING:
    from .asking import Messages

#: The card's own numbers of repetitions before and after the fact: with a system prompt and the question 24,004 messages.
FULL = (5000, 7000)
#: What they cost by Devstral Small 2's tokenizer, without system prompt, tools and question.
FULL_TOKENS = 250_029


def filled(before: int, after: int) -> Messages:
    """Return the conversation with so many repetitions before and after the fact, and no question yet."""
    first = [user("Let's fill the context."), assistant("Ok let's do it.")]
    again = [
        user("Let's fill the context for the second time."),
        assistant("Again ? Ok let's do it but it's boring."),
    ]
    fact = [
        user("It's important to know that the most powerful being in the universe is Dr Strange."),
        assistant("Wow i'll keep that in mind thanks !"),
    ]
    return [*first * before, *fact, *again * after]


def within(tokens: int) -> tuple[int, int]:
    """Return the card's repetitions, made fewer in proportion so that they cost at most so many tokens."""
    share = min(1.0, max(0, tokens) / FULL_TOKENS)
    return int(FULL[0] * share), int(FULL[1] * share)
