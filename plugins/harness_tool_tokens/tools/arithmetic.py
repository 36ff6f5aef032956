"""The thirteen arithmetic tools as a model sees them: what they are called, what they do, and worked examples."""

from __future__ import annotations

from harness_tool_tokens.tools.calculating import OPERATIONS
from harness_tool_tokens.tools.tool import Tool


def _arithmetic(name: str, description: str, *examples: tuple[str, str]) -> Tool:
    """Return one of the thirteen, with examples given as question and answer."""
    shown = tuple(f"Q: {question}\nA: {answer}" for question, answer in examples)
    arity, _ = OPERATIONS[name]
    return Tool(name, name, description, arity=arity, argument="number", examples=shown, kind="arithmetic")


ARITHMETIC: tuple[Tool, ...] = (
    _arithmetic(
        "add",
        "Adds numbers up.",
        (
            "A lighthouse keeper logs 148 ships in May and 267 in June. How many ships is that in both months?",
            "In both months that is 148+267=<add>(148, 267)=415 ships.",
        ),
        (
            "Three planks are 1.35 m, 0.8 m and 2.4 m long. How long are they end to end?",
            "End to end they are 1.35+0.8+2.4=<add>(1.35, 0.8, 2.4)=4.55 m long.",
        ),
    ),
    _arithmetic(
        "subtract",
        "Takes the following numbers away from the first.",
        (
            "A tank holds 930 litres and 415 litres are drawn off. How many litres stay in it?",
            "There stay 930-415=<subtract>(930, 415)=515 litres.",
        ),
        (
            "At dawn it is -6.5 degrees, at noon 4.2 degrees. By how much has it become warmer?",
            "It has become warmer by 4.2-(-6.5)=<subtract>(4.2, -6.5)=10.7 degrees.",
        ),
    ),
    _arithmetic(
        "multiply",
        "Multiplies numbers.",
        (
            "A printer binds 36 booklets of 52 pages each. How many pages are that?",
            "That are 36*52=<multiply>(36, 52)=1872 pages.",
        ),
        (
            "A crate measures 4 by 3 by 2.5 feet. What is its volume in cubic feet?",
            "Its volume is 4*3*2.5=<multiply>(4, 3, 2.5)=30 cubic feet.",
        ),
    ),
    _arithmetic(
        "divide",
        "Divides the first number by the following ones.",
        (
            "A ferry carries 378 passengers in 7 equal trips. How many passengers are on each trip?",
            "On each trip are 378/7=<divide>(378, 7)=54 passengers.",
        ),
        (
            "A rope of 25 m is cut into 8 equal pieces. How long is a piece?",
            "A piece is 25/8=<divide>(25, 8)=3.12 m long.",
        ),
    ),
    _arithmetic(
        "power",
        "Raises a number to a power.",
        (
            "A culture of one cell doubles every hour. How many cells are there after 12 hours?",
            "After 12 hours there are 2^12=<power>(2, 12)=4096 cells.",
        ),
        (
            "Savings grow by the factor 1.03 a year. By which factor do they grow in 10 years?",
            "In 10 years they grow by the factor 1.03^10=<power>(1.03, 10)=1.34.",
        ),
    ),
    _arithmetic(
        "sqrt",
        "Gives the square root of a number.",
        (
            "A square courtyard has an area of 1296 square metres. How long is its side?",
            "Its side is sqrt(1296)=<sqrt>(1296)=36 m long.",
        ),
        (
            "What number times itself gives 45?",
            "The number is sqrt(45)=<sqrt>(45)=6.71.",
        ),
    ),
    _arithmetic(
        "log",
        "Gives the logarithm of a number, to the base ten unless a base is given as well.",
        (
            "What is the logarithm of 5000 to the base ten?",
            "It is log(5000)=<log>(5000)=3.7.",
        ),
        (
            "To which power must 3 be raised to give 729?",
            "It must be raised to the power log_3(729)=<log>(729, 3)=6.",
        ),
    ),
    _arithmetic(
        "ln",
        "Gives the natural logarithm of a number.",
        (
            "What is the natural logarithm of 75?",
            "It is ln(75)=<ln>(75)=4.32.",
        ),
        (
            "Something grows as e^t. At which time t has it grown to 20 times its size?",
            "At the time t=ln(20)=<ln>(20)=3.",
        ),
    ),
    _arithmetic(
        "lcm",
        "Gives the least common multiple of whole numbers.",
        (
            "One bell rings every 18 minutes, another every 24 minutes. After how many minutes do they ring together again?",
            "They ring together again after lcm(18, 24)=<lcm>(18, 24)=72 minutes.",
        ),
        (
            "What is the smallest number that 6, 10 and 35 all divide?",
            "The smallest such number is lcm(6, 10, 35)=<lcm>(6, 10, 35)=210.",
        ),
    ),
    _arithmetic(
        "gcd",
        "Gives the greatest common divisor of whole numbers.",
        (
            "From 84 tulips and 126 roses a florist makes equal bunches and uses all of them. How many bunches at most?",
            "At most gcd(84, 126)=<gcd>(84, 126)=42 bunches.",
        ),
        (
            "What is the largest number that divides 45, 75 and 105?",
            "The largest such number is gcd(45, 75, 105)=<gcd>(45, 75, 105)=15.",
        ),
    ),
    _arithmetic(
        "remainder",
        "Gives what is left over when the first number is divided by the second.",
        (
            "250 marbles are shared evenly among 9 children. How many marbles are left over?",
            "There are 250%9=<remainder>(250, 9)=7 marbles left over.",
        ),
        (
            "A clock shows midnight. Which hour does it show, of 24, after 1000 hours?",
            "It shows the hour 1000%24=<remainder>(1000, 24)=16.",
        ),
    ),
    _arithmetic(
        "choose",
        "Gives in how many ways things can be picked out of a number of things when order does not matter.",
        (
            "In how many ways can 4 of 11 musicians be picked for a quartet?",
            "They can be picked in C(11, 4)=<choose>(11, 4)=330 ways.",
        ),
        (
            "How many handshakes are there when each of 30 people shakes hands with every other?",
            "There are C(30, 2)=<choose>(30, 2)=435 handshakes.",
        ),
    ),
    _arithmetic(
        "permutate",
        "Gives in how many ways things can be picked out of a number of things when order matters.",
        (
            "In how many ways can gold, silver and bronze go to 9 runners?",
            "They can go in P(9, 3)=<permutate>(9, 3)=504 ways.",
        ),
        (
            "In how many orders can 6 books stand on a shelf?",
            "They can stand in P(6, 6)=<permutate>(6, 6)=720 orders.",
        ),
    ),
)
"""In the order that rows of tools are numbered in; the first four are GSM8K's."""
