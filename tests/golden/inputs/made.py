"""The documents of the golden tasks, written here."""

from datasets import Dataset

COLOURS = [("grass", 0), ("snow", 1), ("coal", 2), ("blood", 3), ("milk", 1), ("soot", 2)]
OPTIONS = ["green", "white", "black", "dark red"]


def colours(**_):
    """Return six questions, the last of which are also the examples."""
    rows = [{"question": f"The colour of {thing} is", "options": OPTIONS, "answer": key} for thing, key in COLOURS]
    return {"test": Dataset.from_list(rows[:4]), "train": Dataset.from_list(rows[4:])}


def clocks(**_):
    """Return a text that fits a tiny model's context and one that does not, ünïcödé in both."""
    short = "Forty clocks ticked there, each a little ahead of its neighbour; noon took 4 minutes at Zoë's."
    long = " ".join(
        f"At {hour}:{hour * 7 % 60:02} the {hour}th clock struck — late, “as ever”." for hour in range(1, 25)
    )
    return {"test": Dataset.from_list([{"text": short, "last": " clock"}, {"text": long, "last": " late"}])}


def sums(**_):
    """Return sums whose right calls are known."""
    rows = []
    for number in range(3):
        question = f"What is {number} and {number + 3}?"
        result = str(2 * number + 3)
        calls = [{"tool": "add", "args": f"{number}, {number + 3}", "result": result, "before": ""}]
        use = {
            "procedure": "calls",
            "question": question,
            "prompts": "sums",
            "calls": calls,
            "tools": ["add", "multiply"],
        }
        prompt = f"Q: What is 1 and 1?\nA: 1+1=2\n\nQ: {question}\nA:"
        rows.append({"question": question, "answer": result, "prompt": prompt, "tool_use": use})
    return {"test": Dataset.from_list(rows)}
