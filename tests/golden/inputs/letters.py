"""A tool of one's own, as the README of the plugin shows it."""

from harness_tool_tokens import tool


@tool(
    description="how often a letter occurs in a word",
    examples=[
        "Q: How many times does the letter e occur in cheese?\nA: The letter e occurs <count_letter>(e, cheese)=3 times.",
        "Q: How many times does the letter o occur in balloon?\nA: The letter o occurs <count_letter>(o, balloon)=2 times.",
    ],
)
def count_letter(letter, word):
    return word.lower().count(letter.lower())
